//! The store: in memory, slow, and failing by lot in the ways that object stores do.
//!
//! | Fault | What the client sees | What the store holds |
//! |---|---|---|
//! | refused | an error | nothing new |
//! | answer lost | an error; or, where its own second try met the first, "exists" | the object |
//! | lands later | an error | the object, some seconds later |
//! | body cut | an error while the body is read | |
//! | cut off | errors alone, for seconds | what was under way |
//! | slow | an answer after seconds: its process is a zombie by then | the object, late or early |
//!
//! Like S3 it is strongly consistent: what was acknowledged is there for every later reader.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt};
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result, UploadPart,
};

use crate::clock::{self, sleep_ms};
use crate::world::{Moment, World};

/// A process's way to the store.
#[derive(Clone)]
pub(crate) struct FailingStore {
    pub(crate) world: Arc<World>,
    pub(crate) process: usize,
}

impl fmt::Debug for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FailingStore({})", self.process)
    }
}

impl fmt::Display for FailingStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a failing store")
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Fault {
    None,
    Refused,
    AnswerLost,
    LandsLater,
    BodyCut,
}

fn failed(why: &'static str) -> Error {
    Error::Generic { store: "simulated", source: why.into() }
}

/// What the store does, at once.
fn put_now(world: &World, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
    let bytes: Bytes = payload.clone().into();
    let put = world.inner.put_opts(path, payload, options).now_or_never().expect("memory does not wait");
    if put.is_ok() {
        world.put_done(path, &bytes);
    }
    put
}

impl FailingStore {
    fn fault(&self, writes: bool) -> Fault {
        let world = &self.world;
        let cut_off = world.cut_off(self.process);
        if !cut_off && (world.calm.load(Ordering::Relaxed) || !world.chance(world.scenario.faults_per_mille)) {
            return Fault::None;
        }
        let fault = match writes {
            true => world.pick(&[Fault::Refused, Fault::AnswerLost, Fault::AnswerLost, Fault::LandsLater]),
            false => world.pick(&[Fault::Refused, Fault::BodyCut]),
        };
        world.note(&format!("fault: {fault:?}"));
        fault
    }

    /// The way there, or back.
    async fn travel(&self) {
        let (calm, slow_until) = self.world.slowness(self.process);
        let now = clock::now_ms();
        if slow_until > now {
            sleep_ms(slow_until - now).await;
        }
        let ms = match self.world.below(if calm { 20 } else { 100 }) {
            99 => 600,
            98 => 120,
            some => some % 12,
        };
        sleep_ms(ms).await;
    }
}

#[async_trait]
impl ObjectStore for FailingStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let mut fault = self.fault(true);
        let creates = matches!(options.mode, PutMode::Create);
        if World::is_entry(path) {
            self.world.note_put(self.process, &payload);
            if self.world.cut_off_at_put(self.process) {
                fault = Fault::AnswerLost;
            }
            self.world.freeze_if(self.process, Moment::Put);
        }
        self.travel().await;
        match fault {
            Fault::Refused => {
                self.travel().await;
                Err(failed("503 Slow Down"))
            }
            Fault::LandsLater => {
                let (world, path) = (Arc::clone(&self.world), path.clone());
                let late = self.world.at_most(self.process, self.world.pick(&[5, 60, 400, 2_500]));
                clock::spawn(clock::WEATHER, async move {
                    sleep_ms(late).await;
                    let landed = put_now(&world, &path, payload, options).is_ok();
                    if landed && World::is_entry(&path) {
                        world.note("entry: landed after its writer was told of a failure");
                    }
                });
                self.travel().await;
                Err(failed("the connection was lost"))
            }
            Fault::AnswerLost => {
                let landed = put_now(&self.world, path, payload, options);
                self.travel().await;
                if landed.is_ok() && World::is_entry(path) {
                    self.world.note("entry: landed, the answer was lost");
                    self.world.lose_answer(path);
                }
                match creates && self.world.chance(500) {
                    true => Err(Error::AlreadyExists { path: path.to_string(), source: "the second try".into() }),
                    false => Err(failed("the answer was lost")),
                }
            }
            Fault::None | Fault::BodyCut => {
                let put = put_now(&self.world, path, payload, options);
                self.travel().await;
                put
            }
        }
    }

    async fn put_multipart_opts(&self, path: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        self.travel().await;
        if self.fault(false) != Fault::None {
            return Err(failed("503 Slow Down"));
        }
        Ok(Box::new(Upload { store: self.clone(), path: path.clone(), parts: vec![] }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.fault(false);
        if World::is_file(path) {
            self.world.freeze_if(self.process, Moment::Read);
        }
        self.travel().await;
        let got = self.world.inner.get_opts(path, options).await;
        self.travel().await;
        match fault {
            Fault::Refused => Err(failed("503 Slow Down")),
            Fault::BodyCut => got.map(|got| GetResult {
                payload: GetResultPayload::Stream(stream::once(async { Err(failed("the body was cut")) }).boxed()),
                ..got
            }),
            _ => got,
        }
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let store = self.clone();
        paths
            .and_then(move |path| {
                let store = store.clone();
                async move {
                    let fault = store.fault(true);
                    store.travel().await;
                    assert!(!World::is_entry(&path), "an entry is never deleted: {path}");
                    match fault {
                        Fault::Refused | Fault::LandsLater => Err(failed("503 Slow Down")),
                        _ => {
                            use object_store::ObjectStoreExt;
                            let deleted = store.world.inner.delete(&path).await;
                            store.world.swept(&path);
                            store.travel().await;
                            deleted.map(|()| path)
                        }
                    }
                }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.world.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.travel().await;
        self.world.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(Error::NotImplemented { operation: "copy".into(), implementer: "simulated".into() })
    }
}

/// An upload in parts: nothing is there until it is complete.
#[derive(Debug)]
struct Upload {
    store: FailingStore,
    path: Path,
    parts: Vec<PutPayload>,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        self.parts.push(data);
        let store = self.store.clone();
        async move {
            store.travel().await;
            match store.fault(false) {
                Fault::None => Ok(()),
                _ => {
                    store.world.note("upload: left half written");
                    Err(failed("503 Slow Down"))
                }
            }
        }
        .boxed()
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.fault(true);
        self.store.travel().await;
        if matches!(fault, Fault::Refused | Fault::LandsLater) {
            self.store.world.note("upload: left half written");
            return Err(failed("503 Slow Down"));
        }
        let whole: PutPayload = self.parts.iter().flatten().cloned().collect();
        let put = put_now(&self.store.world, &self.path, whole, PutOptions::default());
        self.store.travel().await;
        if fault == Fault::AnswerLost { Err(failed("the answer was lost")) } else { put }
    }

    async fn abort(&mut self) -> Result<()> {
        Ok(())
    }
}
