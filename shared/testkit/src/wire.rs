//! A TCP proxy between a program and a server, to be cut and mended on command.

use std::net::SocketAddr;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A wire to a server; whole at first. It goes with this value.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    target: String,
    whole: watch::Sender<bool>,
    accepting: tokio::task::JoinHandle<()>,
}

impl Wire {
    /// Listens on a free port and connects through to `target`, `host:port`.
    pub async fn to(target: &str) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (whole, state) = watch::channel(true);
        let (to, target) = (target.to_owned(), target.to_owned());
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to.clone(), state.clone()));
            }
        });
        Wire { address, target, whole, accepting }
    }

    /// A wire before the server of a URL such as `postgres://user@host:1234/name`.
    pub async fn before(url: &str) -> Wire {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = rest.split(['/', '?']).next().unwrap_or(rest);
        let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
        Wire::to(host).await
    }

    /// `host:port` of this end.
    #[must_use]
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// The URL with this wire in place of the server.
    #[must_use]
    pub fn instead(&self, url: &str) -> String {
        url.replacen(&self.target, &self.address(), 1)
    }

    /// Breaks what is open and lets nothing new through.
    pub fn cut(&self) {
        self.whole.send_replace(false);
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.whole.send_replace(true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(mut near: TcpStream, target: String, mut state: watch::Receiver<bool>) {
    if !*state.borrow_and_update() {
        return;
    }
    let Ok(mut far) = TcpStream::connect(&target).await else { return };
    tokio::select! {
        _ = copy_bidirectional(&mut near, &mut far) => {}
        _ = state.wait_for(|whole| !whole) => {}
    }
}
