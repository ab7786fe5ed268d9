//! A request's body, which tells when it has been read whole: from then on the request is being served.

use super::line::Place;
use hyper::body::{Body, Bytes, Frame, Incoming, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// What a handler reads. While it is not read to its end, its connection counts as quiet; without a body it is read already.
#[derive(Debug)]
pub struct RequestBody {
    incoming: Incoming,
    place: Place,
}

impl RequestBody {
    pub(super) fn new(incoming: Incoming, place: Place) -> RequestBody {
        let body = RequestBody { incoming, place };
        if body.is_end_stream() {
            body.place.is_served();
        }
        body
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let frame = Pin::new(&mut self.incoming).poll_frame(context);
        // Of a chunked body only the missing frame tells the end.
        if matches!(frame, Poll::Ready(None)) || self.incoming.is_end_stream() {
            self.place.is_served();
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
