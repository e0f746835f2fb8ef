//! What comes out of a job's container, and what goes in.
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message as _;
use proto::init::{FromInit, ToInit};

fuzz_target!(|data: &[u8]| {
    for message in [FromInit::decode_length_delimited(data), FromInit::decode(data)].into_iter().flatten() {
        let again = FromInit::decode(message.encode_to_vec().as_slice());
        assert_eq!(again.as_ref(), Ok(&message));
    }
    let _ = ToInit::decode_length_delimited(data);
});
