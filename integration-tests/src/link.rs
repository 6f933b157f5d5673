//! A way to a service that can be cut: what is sent waits, as behind a switch that lost its power, and
//! arrives late once it is whole again.

use std::{io, net::SocketAddr};

use anyhow::Result;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::watch,
    task::JoinSet,
};

/// A port that leads to another one. Ends when dropped.
#[derive(Debug)]
pub struct Link {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    _accepting: JoinSet<()>,
}

impl Link {
    /// A way to a port of this machine.
    pub async fn to(target: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (whole, state) = watch::channel(true);
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((near, _)) = listener.accept().await {
                connections.spawn(carry(near, target, state.clone()));
                while connections.try_join_next().is_some() {}
            }
        });
        Ok(Self { address, whole, _accepting: accepting })
    }

    /// Where it begins.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nothing passes from now on, in either direction.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Everything passes again, what waited first.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

async fn carry(near: TcpStream, target: u16, mut whole: watch::Receiver<bool>) {
    // Who connects while it is cut waits too.
    if whole.wait_for(|whole| *whole).await.is_err() {
        return;
    }
    let Ok(far) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = near.set_nodelay(true);
    let _ = far.set_nodelay(true);
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    // The first end that goes takes the connection along.
    tokio::select! {
        _ = pump(near_read, far_write, whole.clone()) => {}
        _ = pump(far_read, near_write, whole) => {}
    }
}

async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut whole: watch::Receiver<bool>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let read = from.read(&mut buffer).await?;
        if read == 0 {
            return Ok(());
        }
        if whole.wait_for(|whole| *whole).await.is_err() {
            return Ok(());
        }
        to.write_all(&buffer[..read]).await?;
    }
}
