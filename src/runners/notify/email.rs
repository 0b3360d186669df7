//! E-mail, handed to the operator's SMTP server.

use std::time::{Duration, SystemTime};

use lettre::message::Mailbox;
use lettre::message::header::{ContentType, HeaderName, HeaderValue};
use lettre::transport::smtp::Error;
use lettre::{Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};

use super::Notification;
use crate::domain::task::Task;
use crate::runner::AttemptError;

#[derive(Clone, Debug)]
pub struct Mailer {
    transport: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
}

/// For each answer of the server.
const TIMEOUT: Duration = Duration::from_secs(30);
/// What a message without subject and title is called.
const SUBJECT: &str = "Notification";
/// Answers that complain about our login and not about the message (RFC 4954).
const LOGIN_REFUSED: [u16; 4] = [530, 534, 535, 538];

impl Mailer {
    /// `url` is `smtp://` or `smtps://`, with user, password and port if need be; `?tls=required` asks for STARTTLS.
    pub fn new(url: &str, from: Mailbox) -> Result<Self, Error> {
        crate::cryptography::choose();
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url)?;
        Ok(Mailer {
            transport: builder.timeout(Some(TIMEOUT)).build(),
            from,
        })
    }

    /// Gives the message's `Message-ID`.
    pub async fn send(
        &self,
        task: &Task,
        notification: &Notification,
    ) -> Result<String, AttemptError> {
        let id = format!("<{}@{}>", task.id, self.from.email.domain());
        let to: Address = notification
            .to
            .parse()
            .map_err(|_| AttemptError::permanent("invalid-params", "to is no e-mail address"))?;
        let message = self.message(&id, to.into(), task, notification);
        let message = message.map_err(|error| {
            tracing::warn!(task = %task.id, %error, "an e-mail cannot be written");
            AttemptError::permanent("invalid-params", "the e-mail cannot be written")
        })?;
        match self.transport.send(message).await {
            Ok(_) => Ok(id),
            Err(error) => Err(refused(task, &error)),
        }
    }

    /// The same for every attempt.
    fn message(
        &self,
        id: &str,
        to: Mailbox,
        task: &Task,
        notification: &Notification,
    ) -> Result<Message, lettre::error::Error> {
        let Notification {
            subject,
            title,
            level,
            body,
            ..
        } = notification;
        let called = subject.as_ref().or(title.as_ref());
        let called = called.map_or(SUBJECT, String::as_str);
        let since = Duration::from_millis(task.created_at.as_ms().try_into().unwrap_or_default());
        let mut message = Message::builder()
            .message_id(Some(id.to_owned()))
            .date(SystemTime::UNIX_EPOCH + since)
            .from(self.from.clone())
            .to(to)
            .subject(one_line(called))
            .header(ContentType::TEXT_PLAIN);
        if let Some(level) = level {
            let name = HeaderName::new_from_ascii_str("X-Notification-Level");
            message = message.raw_header(HeaderValue::new(name, level.clone()));
        }
        let heading = title.as_ref().filter(|_| subject.is_some());
        message.body(match heading {
            Some(title) => format!("{title}\n\n{body}"),
            None => body.clone(),
        })
    }
}

/// Nothing in a subject may look like the next header field.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// The server's own words are for the log: they may tell about the operator's network.
fn refused(task: &Task, error: &Error) -> AttemptError {
    let status = error.status().map(u16::from);
    tracing::warn!(task = %task.id, status, %error, "an e-mail was not taken");
    match status {
        Some(status) if error.is_permanent() && !LOGIN_REFUSED.contains(&status) => {
            AttemptError::permanent(
                "smtp-refused",
                format!("the mail server refused the message ({status})"),
            )
        }
        Some(status) => AttemptError::retryable(
            "smtp-failed",
            format!("the mail server cannot take the message now ({status})"),
        ),
        None => AttemptError::retryable("connection-failed", "the mail server cannot be reached"),
    }
}
