//! What a worker sends: messages of its session, its logs and calls, and the report of a job.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::worker::{ActionsApiRequest, ArchiveRequest, FromWorker, LogRequest, ResolveRequest, SourceRequest};
use workflow::plan::{JobOrder, JobReport};

fuzz_target!(|data: &[u8]| {
    let _ = FromWorker::decode(data);
    let _ = LogRequest::decode(data);
    let _ = SourceRequest::decode(data);
    let _ = ResolveRequest::decode(data);
    let _ = ArchiveRequest::decode(data);
    let _ = ActionsApiRequest::decode(data);
    let _ = serde_json::from_slice::<JobReport>(data);
    let _ = serde_json::from_slice::<JobOrder>(data);
});
