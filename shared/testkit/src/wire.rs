//! A TCP proxy between a program and a server, to be cut and mended on command.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{oneshot, watch},
};

/// A wire to a server; whole at first. It goes with this value.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    target: String,
    whole: watch::Sender<bool>,
    hold: Arc<Mutex<Option<Hold>>>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Debug)]
struct Hold {
    bytes: Vec<u8>,
    reached: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
}

/// A point in the traffic at which the wire stops once.
#[derive(Debug)]
pub struct HoldPoint {
    reached: oneshot::Receiver<()>,
    go_on: oneshot::Sender<()>,
}

impl HoldPoint {
    /// Waits until the traffic has come to the point, and returns what lets it go on.
    pub async fn reached(self) -> oneshot::Sender<()> {
        self.reached.await.expect("the awaited bytes come while the wire is there");
        self.go_on
    }
}

impl Wire {
    /// Listens on a free port and connects through to `target`, `host:port`.
    pub async fn to(target: &str) -> Wire {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let (whole, state) = watch::channel(true);
        let (to, target) = (target.to_owned(), target.to_owned());
        let hold = Arc::new(Mutex::new(None));
        let holding = hold.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to.clone(), state.clone(), holding.clone()));
            }
        });
        Wire { address, target, whole, hold, accepting }
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

    /// Stops once, in either direction, before the next chunk that has these bytes in it.
    #[must_use]
    pub fn hold_at(&self, bytes: &[u8]) -> HoldPoint {
        let ((reached, has_reached), (go_on, goes_on)) = (oneshot::channel(), oneshot::channel());
        let hold = Hold { bytes: bytes.to_vec(), reached, go_on: goes_on };
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        HoldPoint { reached: has_reached, go_on }
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

async fn carry(
    near: TcpStream,
    target: String,
    mut state: watch::Receiver<bool>,
    hold: Arc<Mutex<Option<Hold>>>,
) {
    if !*state.borrow_and_update() {
        return;
    }
    let Ok(far) = TcpStream::connect(&target).await else { return };
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    tokio::select! {
        _ = pump(near_in, far_out, &hold) => {}
        _ = pump(far_in, near_out, &hold) => {}
        _ = state.wait_for(|whole| !whole) => {}
    }
}

/// Passes bytes on; stops before the first chunk that holds the awaited bytes until the test lets it go.
async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, hold: &Mutex<Option<Hold>>) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let chunk = buffer.get(..length).unwrap_or_default();
        let found = {
            let mut hold = hold.lock().unwrap_or_else(PoisonError::into_inner);
            let awaited = hold
                .as_ref()
                .is_some_and(|hold| chunk.windows(hold.bytes.len()).any(|part| part == hold.bytes));
            if awaited { hold.take() } else { None }
        };
        if let Some(Hold { reached, go_on, .. }) = found {
            let _ = reached.send(());
            let _ = go_on.await;
        }
        to.write_all(chunk).await?;
    }
}
