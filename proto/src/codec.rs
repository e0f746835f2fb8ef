//! How messages of gRPC calls become bytes: as tonic does it, with buffers that grow when a message needs it.

use std::marker::PhantomData;

use prost::Message;
use tonic::codec::{BufferSettings, Codec};
use tonic_prost::{ProstDecoder, ProstEncoder};

/// What a stream has before its first message, for each direction, in bytes: most streams are sessions with idle workers,
/// and tonic gives each 8 KiB twice.
const BUFFER: usize = 1024;
/// Messages that are ready are sent together up to this many bytes, as with tonic's own codec.
const SENT_TOGETHER: usize = 32 * 1024;

/// Protocol buffers with small buffers for each stream.
#[derive(Debug)]
pub struct StreamCodec<T, U>(PhantomData<(T, U)>);

impl<T, U> Default for StreamCodec<T, U> {
    fn default() -> Self {
        Self(PhantomData)
    }
}

impl<T, U> Codec for StreamCodec<T, U>
where
    T: Message + Send + 'static,
    U: Message + Default + Send + 'static,
{
    type Encode = T;
    type Decode = U;
    type Encoder = ProstEncoder<T>;
    type Decoder = ProstDecoder<U>;

    fn encoder(&mut self) -> Self::Encoder {
        ProstEncoder::new(BufferSettings::new(BUFFER, SENT_TOGETHER))
    }

    fn decoder(&mut self) -> Self::Decoder {
        ProstDecoder::new(BufferSettings::new(BUFFER, SENT_TOGETHER))
    }
}
