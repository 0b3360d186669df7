//! Where one value of Redis's protocol ends.

/// The length of the first value; none while it is not whole.
pub fn value_length(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(2).position(|two| two == b"\r\n")?;
    let after = end + 2;
    let number = || {
        std::str::from_utf8(&bytes[1..end])
            .ok()?
            .parse::<i64>()
            .ok()
    };
    match bytes.first()? {
        b'$' | b'!' | b'=' => {
            let length = number()?;
            let whole = match usize::try_from(length) {
                Ok(length) => after + length + 2,
                // Null.
                Err(_) => after,
            };
            (bytes.len() >= whole).then_some(whole)
        }
        b'*' | b'~' | b'>' => values_length(bytes, after, number()?),
        b'%' | b'|' => values_length(bytes, after, number()? * 2),
        _ => Some(after),
    }
}

fn values_length(bytes: &[u8], mut at: usize, count: i64) -> Option<usize> {
    for _ in 0..count {
        at += value_length(&bytes[at..])?;
    }
    Some(at)
}

/// Whether a command's first word is this one.
pub fn is_command(command: &[u8], name: &str) -> bool {
    let word = format!("\r\n${}\r\n{name}\r\n", name.len());
    let at = command.iter().position(|byte| *byte == b'\r').unwrap_or(0);
    command[at..].len() >= word.len()
        && command[at..at + word.len()].eq_ignore_ascii_case(word.as_bytes())
}

#[test]
fn values_end_where_they_end() {
    for whole in [
        "+OK\r\n",
        ":12\r\n",
        "$-1\r\n",
        "$3\r\na\r\n\r\n",
        "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
        "%1\r\n+a\r\n_\r\n",
        ">2\r\n+message\r\n$0\r\n\r\n",
    ] {
        let bytes = format!("{whole}+next\r\n");
        assert_eq!(
            value_length(bytes.as_bytes()),
            Some(whole.len()),
            "{whole:?}"
        );
        assert_eq!(value_length(&whole.as_bytes()[..whole.len() - 1]), None);
    }
    assert!(is_command(b"*2\r\n$7\r\nevalsha\r\n$1\r\nx\r\n", "EVALSHA"));
    assert!(!is_command(b"*1\r\n$4\r\nPING\r\n", "EVALSHA"));
}
