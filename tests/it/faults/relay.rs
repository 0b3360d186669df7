//! The network between one replica and Redis, which can fall silent: what is sent then arrives when it is
//! over, or never.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinHandle;

pub struct Relay {
    pub address: SocketAddr,
    silent: watch::Sender<bool>,
    cut: broadcast::Sender<()>,
    accepting: JoinHandle<()>,
}

impl Relay {
    pub async fn start(redis: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let silent = watch::Sender::new(false);
        let cut = broadcast::Sender::new(1);
        let accepting = tokio::spawn(accept(listener, redis, silent.clone(), cut.clone()));
        Relay {
            address,
            silent,
            cut,
            accepting,
        }
    }

    pub fn fall_silent(&self) {
        self.silent.send_replace(true);
    }

    /// What was held up goes on its way, unless the connections are `cut`.
    pub fn speak(&self, cut: bool) {
        if cut {
            // Nobody may be connected.
            let _ = self.cut.send(());
        }
        self.silent.send_replace(false);
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    redis: SocketAddr,
    silent: watch::Sender<bool>,
    cut: broadcast::Sender<()>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let (silent, mut cut) = (silent.subscribe(), cut.subscribe());
        tokio::spawn(async move {
            tokio::select! {
                // Both ends see that it broke.
                _ = carry(client, redis, silent) => {}
                _ = cut.recv() => {}
            }
        });
    }
}

async fn carry(
    client: TcpStream,
    redis: SocketAddr,
    mut silent: watch::Receiver<bool>,
) -> io::Result<()> {
    spoken(&mut silent).await;
    let redis = TcpStream::connect(redis).await?;
    client.set_nodelay(true)?;
    redis.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_redis, to_redis) = redis.into_split();
    tokio::select! {
        ended = pass_on(from_client, to_redis, silent.clone()) => ended,
        ended = pass_on(from_redis, to_client, silent.clone()) => ended,
    }
}

async fn pass_on(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut silent: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let count = from.read(&mut buffer).await?;
        spoken(&mut silent).await;
        if count == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..count]).await?;
    }
}

async fn spoken(silent: &mut watch::Receiver<bool>) {
    // The sender lives as long as the relay.
    let _ = silent.wait_for(|silent| !silent).await;
}
