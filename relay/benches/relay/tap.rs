//! A way to MongoDB that notes when an update was acknowledged: the moment at which its reply comes from the server.
//!
//! It reads the frames that pass, changes nothing, and adds what one more hop on the same machine takes.

use std::{
    collections::HashMap,
    io,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
    task::JoinHandle,
};

/// Acknowledgements that nobody has looked at yet; more are lost, and missed at the end.
const UNREAD: usize = 100_000;
/// The largest frame of MongoDB's protocol.
const LARGEST: usize = 48_000_000;

/// The message with this number is in MongoDB since then.
pub(crate) type Acknowledged = (u32, Instant);

/// Goes with this value.
#[derive(Debug)]
pub(crate) struct Tap {
    /// MongoDB by way of the tap.
    pub(crate) url: String,
    pub(crate) acknowledged: mpsc::Receiver<Acknowledged>,
    accepting: JoinHandle<()>,
}

/// Messages of the updates that have no reply yet, by the request's id.
type Open = Arc<Mutex<HashMap<[u8; 4], Vec<u32>>>>;

impl Tap {
    /// Before the server of a URL such as `mongodb://host:1234/?replicaSet=rs0`.
    pub(crate) async fn before(url: &str) -> io::Result<Tap> {
        let authority = url.split_once("://").map_or(url, |(_, rest)| rest);
        let authority = authority.split(['/', '?']).next().unwrap_or(authority).to_owned();
        let host = authority.rsplit_once('@').map_or(authority.as_str(), |(_, host)| host).to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        // Direct, else the driver asks the replica set for its members and goes past the tap.
        let here = authority.replace(&host, &listener.local_addr()?.to_string());
        let url = format!("mongodb://{here}/?directConnection=true");
        let (sender, acknowledged) = mpsc::channel(UNREAD);
        let accepting = tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(carry(near, host.clone(), sender.clone()));
            }
        });
        Ok(Tap { url, acknowledged, accepting })
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn carry(near: TcpStream, host: String, sender: mpsc::Sender<Acknowledged>) -> io::Result<()> {
    let far = TcpStream::connect(host).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (near_in, near_out) = near.into_split();
    let (far_in, far_out) = far.into_split();
    let open = Open::default();
    tokio::select! {
        end = requests(near_in, far_out, &open) => end,
        end = replies(far_in, near_out, &open, &sender) => end,
    }
}

async fn requests(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, open: &Open) -> io::Result<()> {
    loop {
        let frame = read(&mut from).await?;
        let messages = messages_of(&frame);
        if let (false, Some(id)) = (messages.is_empty(), part(&frame, 4)) {
            open.lock().unwrap_or_else(PoisonError::into_inner).insert(id, messages);
        }
        to.write_all(&frame).await?;
    }
}

async fn replies(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    open: &Open,
    sender: &mpsc::Sender<Acknowledged>,
) -> io::Result<()> {
    loop {
        let frame = read(&mut from).await?;
        let now = Instant::now();
        let answers = part(&frame, 8);
        let messages = answers.and_then(|id| open.lock().unwrap_or_else(PoisonError::into_inner).remove(&id));
        for message in messages.into_iter().flatten() {
            let _ = sender.try_send((message, now));
        }
        to.write_all(&frame).await?;
    }
}

/// A whole frame; its first four bytes are its length.
async fn read(from: &mut OwnedReadHalf) -> io::Result<Vec<u8>> {
    let mut frame = vec![0; 4];
    from.read_exact(&mut frame).await?;
    let length = part(&frame, 0).map_or(0, u32::from_le_bytes);
    let length = usize::try_from(length).ok().filter(|length| (16..=LARGEST).contains(length));
    frame.resize(length.ok_or(io::ErrorKind::InvalidData)?, 0);
    from.read_exact(frame.get_mut(4..).unwrap_or_default()).await?;
    Ok(frame)
}

fn part(frame: &[u8], at: usize) -> Option<[u8; 4]> {
    frame.get(at..at + 4)?.try_into().ok()
}

/// The messages whose stamps an update command sets: strings of 20 digits, as BSON has them, under the name `stamp`.
fn messages_of(frame: &[u8]) -> Vec<u32> {
    const NAME: &[u8] = b"\x02stamp\0\x15\0\0\0";
    const COMMAND: &[u8] = b"\x02update\0";
    if !frame.windows(COMMAND.len()).any(|bytes| bytes == COMMAND) {
        return Vec::new();
    }
    let stamps = frame.windows(NAME.len() + 20).filter_map(|bytes| bytes.strip_prefix(NAME));
    stamps.filter_map(|digits| crate::stock::message_of(std::str::from_utf8(digits).ok()?)).collect()
}
