//! A worker made of bare messages: what a broken, old or hostile one says.

use std::{path::Path, time::Duration};

use proto::worker::{
    Accept, Attempt, FromWorker, LogOpen, LogRequest, Proof, Register, Renew, Result as Report, ToWorker, Welcome,
    bulk_client::BulkClient, from_worker, log_request, to_worker::Message, workers_client::WorkersClient,
};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Status, Streaming,
    transport::{Certificate, Channel, ClientTlsConfig},
};

use crate::pool::{Pool, within};

/// A key pair from a number.
pub(crate) fn key(number: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[number; 32]).unwrap()
}

pub(crate) fn public(key: &Ed25519KeyPair) -> String {
    hex::encode(key.public_key())
}

pub(crate) async fn channel(port: u16, ca: &Path) -> Channel {
    let tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(std::fs::read(ca).unwrap()));
    let url = format!("https://localhost:{port}");
    Channel::from_shared(url).unwrap().tls_config(tls).unwrap().connect().await.unwrap()
}

pub(crate) struct Raw {
    pub(crate) out: mpsc::Sender<FromWorker>,
    pub(crate) inbound: Streaming<ToWorker>,
    pub(crate) welcome: Welcome,
    pub(crate) bulk: BulkClient<Channel>,
}

impl Raw {
    /// A welcomed worker with two slots and one label; its identity is enrolled.
    pub(crate) async fn join(pool: &Pool, number: u8) -> Self {
        pool.enrol(&public(&key(number)));
        Self::register(pool, &key(number), Register { identity: public(&key(number)), ..register() }).await.unwrap()
    }

    /// Registers as told and signs with a key.
    pub(crate) async fn register(pool: &Pool, signer: &Ed25519KeyPair, register: Register) -> Result<Self, Status> {
        let channel = channel(pool.port, &pool.keys.ca).await;
        let (out, stream) = mpsc::channel(16);
        let mut client = WorkersClient::new(channel.clone());
        out.send(FromWorker { message: Some(from_worker::Message::Register(register)) }).await.unwrap();
        let mut inbound = client.session(ReceiverStream::new(stream)).await?.into_inner();
        loop {
            match inbound.message().await?.and_then(|message| message.message) {
                Some(Message::Challenge(challenge)) => {
                    let text = [proto::SESSION_CONTEXT, &challenge.nonce].concat();
                    let signature = signer.sign(&text).as_ref().to_vec().into();
                    out.send(FromWorker { message: Some(from_worker::Message::Proof(Proof { signature })) })
                        .await
                        .unwrap();
                }
                Some(Message::Welcome(welcome)) => {
                    return Ok(Self { out, inbound, welcome, bulk: BulkClient::new(channel) });
                }
                other => panic!("{other:?} before Welcome"),
            }
        }
    }

    pub(crate) async fn say(&self, message: from_worker::Message) {
        self.out.send(FromWorker { message: Some(message) }).await.unwrap();
    }

    pub(crate) async fn hear(&mut self) -> Message {
        let message = within("a message", self.inbound.message()).await.unwrap().expect("the session goes on");
        message.message.unwrap()
    }

    /// Hears on until there is what one waits for.
    pub(crate) async fn hear_until<T>(&mut self, mut pick: impl FnMut(Message) -> Option<T>) -> T {
        loop {
            if let Some(found) = pick(self.hear().await) {
                return found;
            }
        }
    }

    pub(crate) async fn offer(&mut self) -> String {
        self.hear_until(|message| if let Message::Offer(offer) = message { Some(offer.offer) } else { None }).await
    }

    /// Accepts the next offer and returns the job.
    pub(crate) async fn take(&mut self) -> proto::worker::Job {
        let offer = self.offer().await;
        self.say(from_worker::Message::Accept(Accept { offer })).await;
        self.hear_until(|message| if let Message::Job(job) = message { Some(job) } else { None }).await
    }

    /// The attempt of the next Stop.
    pub(crate) async fn stopped(&mut self) -> Attempt {
        self.hear_until(|message| if let Message::Stop(stop) = message { stop.attempt } else { None }).await
    }

    pub(crate) async fn renew(&self, attempts: &[Attempt]) {
        self.say(from_worker::Message::Renew(Renew { attempts: attempts.to_vec() })).await;
    }

    /// Reports success.
    pub(crate) async fn report(&self, attempt: &Attempt) {
        let report = serde_json::json!({
            "conclusion": "success", "reason": null, "exit_code": 0, "steps": [], "outputs": {}, "annotations": [],
            "summary": "", "started": true, "image": null, "started_at_ms": 0, "finished_at_ms": 0
        });
        self.say(from_worker::Message::Result(Report {
            attempt: Some(attempt.clone()),
            report: report.to_string().into(),
        }))
        .await;
    }

    /// Opens a log stream and returns the first acknowledgement.
    pub(crate) async fn open_log(&mut self, attempt: &Attempt, token: &str) -> proto::worker::LogAck {
        let open = LogOpen { attempt: Some(attempt.clone()), token: token.to_owned() };
        let (out, stream) = mpsc::channel(1);
        out.send(LogRequest { message: Some(log_request::Message::Open(open)) }).await.unwrap();
        let mut acks = self.bulk.logs(ReceiverStream::new(stream)).await.unwrap().into_inner();
        within("an acknowledgement", acks.message()).await.unwrap().unwrap()
    }

    /// How the session ends, if it does so soon.
    pub(crate) async fn ended(&mut self) -> Status {
        loop {
            match tokio::time::timeout(Duration::from_secs(10), self.inbound.message()).await.expect("the end") {
                Ok(Some(_)) => {}
                Ok(None) => return Status::ok("ended"),
                Err(status) => return status,
            }
        }
    }
}

pub(crate) fn register() -> Register {
    Register {
        name: "raw".into(),
        version: "0".into(),
        labels: vec!["ubuntu-latest".into()],
        slots: 2,
        ..Register::default()
    }
}
