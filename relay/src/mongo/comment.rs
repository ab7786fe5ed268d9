//! The comment of each command to MongoDB: there it stands in the log of slow commands, in currentOp and in the profiler.

use mongodb::bson::{Bson, Document, doc};
use shared::{message::MessageId, trace::TraceId};

/// So many messages and traces are named, and no more: the profiler keeps the comment with every statement of a command.
const NAMED: usize = 20;

/// Who says something, for which messages and traces.
#[derive(Debug, Clone)]
pub(super) struct Comment(Document);

impl Comment {
    /// Of a program or a part of it.
    pub(super) fn by(who: &str) -> Comment {
        Comment(doc! { "by": who })
    }

    /// For these messages: the first ones by name, and how many there are in all.
    pub(super) fn about(&self, messages: impl Iterator<Item = (MessageId, Option<TraceId>)>) -> Comment {
        let (mut ids, mut traces, mut count) = (Vec::new(), Vec::new(), 0_i64);
        for (id, trace_id) in messages {
            count += 1;
            if ids.len() < NAMED {
                ids.push(Bson::Int64(id));
                let trace_id = trace_id.map(|trace_id| Bson::String(trace_id.to_string()));
                traces.extend(trace_id.filter(|trace_id| !traces.contains(trace_id)));
            }
        }
        let mut comment = self.0.clone();
        comment.extend(doc! { "messages": ids, "traces": traces, "count": count });
        Comment(comment)
    }

    pub(super) fn document(&self) -> &Document {
        &self.0
    }
}
