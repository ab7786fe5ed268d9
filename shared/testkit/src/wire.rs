//! A TCP proxy between a program and a server, to be cut and mended on command.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::{oneshot, watch},
};

/// Awaited bytes are not longer than this.
const LONGEST: usize = 256;

/// A wire to a server; whole at first. It goes with this value.
#[derive(Debug)]
pub struct Wire {
    address: SocketAddr,
    target: String,
    state: watch::Sender<State>,
    hold: Arc<Mutex<Option<Hold>>>,
    accepting: tokio::task::JoinHandle<()>,
}

#[derive(Debug, Clone, Copy)]
struct State {
    whole: bool,
    /// A connection ends when this is no longer what it was, even if the wire has been mended meanwhile.
    cuts: u64,
    /// A connection carries nothing any more when this is no longer what it was.
    losses: u64,
    flows: bool,
    pace: Option<Pace>,
}

/// How slowly a wire carries: a pause, then so many bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// At most, at once.
    pub bytes: usize,
    /// Before each of them.
    pub pause: Duration,
}

#[derive(Debug)]
struct Hold {
    place: Place,
    bytes: Vec<u8>,
    reached: oneshot::Sender<()>,
    go_on: oneshot::Receiver<()>,
}

/// Where the awaited bytes count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Anywhere,
    Request,
    Reply,
    /// Before the first reply on the connection that the bytes were sent on.
    ReplyTo,
}

/// Which way a chunk goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    ToServer,
    FromServer,
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
        let (sender, state) =
            watch::channel(State { whole: true, cuts: 0, losses: 0, flows: true, pace: None });
        let (to, target) = (target.to_owned(), target.to_owned());
        let hold = Arc::new(Mutex::new(None));
        let holding = hold.clone();
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, to.clone(), state.clone(), holding.clone()));
            }
        });
        Wire { address, target, state: sender, hold, accepting }
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
        self.state.send_modify(|state| {
            state.whole = false;
            state.cuts += 1;
        });
    }

    /// Keeps the connections, takes new ones, and lets nothing through until [`Wire::thaw`].
    pub fn freeze(&self) {
        self.state.send_modify(|state| state.flows = false);
    }

    /// What has been sent meanwhile arrives.
    pub fn thaw(&self) {
        self.state.send_modify(|state| state.flows = true);
    }

    /// Half-open: what is open never carries anything again, and nobody is told; new connections work.
    pub fn lose(&self) {
        self.state.send_modify(|state| state.losses += 1);
    }

    /// In either direction, on open connections and new ones; None = as fast as it comes.
    pub fn pace(&self, pace: Option<Pace>) {
        self.state.send_modify(|state| state.pace = pace);
    }

    /// Stops once, in either direction, before the next chunk that has these bytes in it.
    #[must_use]
    pub fn hold_at(&self, bytes: &[u8]) -> HoldPoint {
        self.hold(Place::Anywhere, bytes)
    }

    /// Stops once before a chunk with these bytes that is on its way to the server. The other connections, and the other
    /// direction of this one, go on.
    #[must_use]
    pub fn hold_request(&self, bytes: &[u8]) -> HoldPoint {
        self.hold(Place::Request, bytes)
    }

    /// Stops once before a chunk with these bytes that comes from the server.
    #[must_use]
    pub fn hold_reply(&self, bytes: &[u8]) -> HoldPoint {
        self.hold(Place::Reply, bytes)
    }

    /// Lets a chunk with these bytes through to the server and stops once before what comes back.
    #[must_use]
    pub fn hold_reply_to(&self, bytes: &[u8]) -> HoldPoint {
        self.hold(Place::ReplyTo, bytes)
    }

    fn hold(&self, place: Place, bytes: &[u8]) -> HoldPoint {
        let ((reached, has_reached), (go_on, goes_on)) = (oneshot::channel(), oneshot::channel());
        assert!((1..=LONGEST).contains(&bytes.len()), "a hold awaits some bytes, and not many");
        let hold = Hold { place, bytes: bytes.to_vec(), reached, go_on: goes_on };
        *self.hold.lock().unwrap_or_else(PoisonError::into_inner) = Some(hold);
        HoldPoint { reached: has_reached, go_on }
    }

    /// Lets new connections through again.
    pub fn mend(&self) {
        self.state.send_modify(|state| state.whole = true);
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

async fn carry(
    mut near: TcpStream,
    target: String,
    mut state: watch::Receiver<State>,
    hold: Arc<Mutex<Option<Hold>>>,
) {
    let State { whole: true, cuts, losses, .. } = *state.borrow_and_update() else { return };
    let Ok(mut far) = TcpStream::connect(&target).await else { return };
    let (near_in, near_out) = near.split();
    let (far_in, far_out) = far.split();
    let (asked, there, back) = (AtomicBool::new(false), state.clone(), state.clone());
    let is_lost = tokio::select! {
        biased; // what is held when the wire is cut never arrives
        change = state.wait_for(|state| state.cuts != cuts || state.losses != losses) =>
            change.is_ok_and(|state| state.cuts == cuts),
        _ = pump(near_in, far_out, Way::ToServer, &hold, &asked, there) => false,
        _ = pump(far_in, near_out, Way::FromServer, &hold, &asked, back) => false,
    };
    if is_lost {
        // Whoever gives up is let go, so that the other end does not keep a connection for ever.
        let mut nowhere = [0; 1024];
        let given_up = async { while near.read(&mut nowhere).await.is_ok_and(|length| length > 0) {} };
        tokio::select! {
            _ = state.wait_for(|state| state.cuts != cuts) => {}
            () = given_up => {}
        }
    }
}

/// Passes bytes on; stops before the chunk that completes the awaited bytes until the test lets it go. `asked`: this connection
/// has carried the bytes whose reply is awaited.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    way: Way,
    hold: &Mutex<Option<Hold>>,
    asked: &AtomicBool,
    mut state: watch::Receiver<State>,
) -> io::Result<()> {
    let mut buffer = vec![0; 64 * 1024];
    let mut passed: Vec<u8> = Vec::new(); // the end of what has been passed on: the bytes may come in two chunks
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return Ok(());
        }
        let chunk = buffer.get(..length).unwrap_or_default();
        let known = passed.len();
        passed.extend_from_slice(chunk);
        let found = {
            let mut hold = hold.lock().unwrap_or_else(PoisonError::into_inner);
            if hold.as_ref().is_some_and(|hold| stops(hold, way, &passed, known, asked)) {
                hold.take()
            } else {
                None
            }
        };
        if let Some(Hold { reached, go_on, .. }) = found {
            let _ = reached.send(());
            let _ = go_on.await;
        }
        let _ = state.wait_for(|state| state.flows).await; // without a sender the wire is gone, and this connection with it
        let mut rest = chunk;
        while !rest.is_empty() {
            let pace = state.borrow().pace;
            let (piece, later) = rest.split_at(pace.map_or(rest.len(), |pace| pace.bytes.min(rest.len())));
            if let Some(Pace { pause, .. }) = pace {
                tokio::time::sleep(pause).await;
            }
            to.write_all(piece).await?;
            rest = later;
        }
        passed.drain(..passed.len().saturating_sub(LONGEST));
    }
}

/// Whether the hold is before the chunk that stands in `passed` after `known` bytes.
fn stops(hold: &Hold, way: Way, passed: &[u8], known: usize, asked: &AtomicBool) -> bool {
    let within = passed.get(known.saturating_sub(hold.bytes.len() - 1)..).unwrap_or_default();
    let here = within.windows(hold.bytes.len()).any(|part| part == hold.bytes);
    match (hold.place, way) {
        (Place::Anywhere, _) | (Place::Request, Way::ToServer) | (Place::Reply, Way::FromServer) => here,
        (Place::Request, Way::FromServer) | (Place::Reply, Way::ToServer) => false,
        (Place::ReplyTo, Way::ToServer) => {
            asked.fetch_or(here, Ordering::Relaxed);
            false
        }
        (Place::ReplyTo, Way::FromServer) => asked.load(Ordering::Relaxed),
    }
}
