//! What each end says and hears on one stream.

use airfleet_domain::moves::{Part, Side};
use airfleet_proto::{
    agent::v1::{
        self as wire, TransferRequest, TransferResponse, agent_service_client::AgentServiceClient,
        transfer_request::Message as Said, transfer_response::Message as Heard,
    },
    convert::micros,
};
use airfleet_transfer::{
    Catalog, Error, Export, ExportOptions, Import, ImportOrder, Opened, Piece, TableSize, Trailer,
    copy::{Chunk, Field},
};
use futures::{SinkExt as _, channel::mpsc};
use tonic::Streaming;

use super::{
    Broken, End, Key, ThisEnd,
    passed::{Passed, TABLES_MAX},
};
use crate::moves::{Notes, Sending, notes, wire as convert};

/// A message has a chunk of one row at most, and its frame. Bytes.
const MESSAGE_MAX: usize = 20 << 20;

/// One stream.
struct Stream {
    say: mpsc::Sender<TransferRequest>,
    heard: Streaming<TransferResponse>,
    /// What the target kept, as the router handed it on.
    kept: Option<wire::TransferPosition>,
}

impl Stream {
    async fn say(&mut self, said: Said) -> Result<(), Broken> {
        let message = TransferRequest { message: Some(said) };
        self.say.send(message).await.map_err(|_| Broken::Again("the stream ended".to_owned()))
    }

    async fn hear(&mut self) -> Result<Heard, Broken> {
        loop {
            let heard = self.heard.message().await?;
            let heard = heard.ok_or_else(|| Broken::Again("the stream ended".to_owned()))?;
            // A later router may say more.
            if let Some(heard) = heard.message {
                return Ok(heard);
            }
        }
    }
}

impl ThisEnd {
    /// Opens a stream and waits until the other end is there.
    async fn join(&mut self, open: wire::TransferOpen) -> Result<Stream, Broken> {
        let router = self.router().await?;
        let mut client = AgentServiceClient::new(router).max_decoding_message_size(MESSAGE_MAX);
        // A message or two wait to be sent: memory does not grow with a slow router.
        let (mut say, said) = mpsc::channel(1);
        let message = TransferRequest { message: Some(Said::Open(open)) };
        say.send(message).await.map_err(|_| Broken::Again("the stream ended".to_owned()))?;
        let heard = client.transfer(said).await?.into_inner();
        let mut stream = Stream { say, heard, kept: None };
        match stream.hear().await? {
            Heard::Joined(joined) => {
                stream.kept = joined.kept;
                Ok(stream)
            }
            _ => Err(Broken::Again("the router did not begin with the other end".to_owned())),
        }
    }

    /// The source's part.
    pub(super) async fn send(&mut self) -> Result<(), Broken> {
        let Key { move_id, task, .. } = self.key.clone();
        if task.part == Part::Ahead {
            // While the source runs. Counting under seal would keep it from running for longer.
            self.mover.estimate(&self.scope, &move_id, task.history).await;
        }
        let Sending { estimate, ahead } = self.mover.sending(&move_id, task.part).await;
        let mut stream = self.join(self.open()).await?;
        // As of a moment ago: a sealed namespace waits for no look at the schema.
        let catalog = self.mover.catalog().await?;
        let kept = stream.kept.map(convert::position_of);
        let options = ExportOptions { part: task.part, history: task.history, kept, ahead };
        let database = &self.mover.database;
        let mut export = Export::begin(database, &catalog, &self.scope, options).await?;
        let (mut bytes, mut keeps) = (0, false);
        let mut result = None;
        let mut trailer = None;
        loop {
            let piece = match export.next().await {
                Ok(Some(piece)) => piece,
                Ok(None) => break,
                Err(error) => {
                    if matches!(error, Error::AheadOutdated(_)) {
                        self.mover.forget_ahead(&move_id).await;
                    }
                    return Err(error.into());
                }
            };
            match &piece {
                Piece::Begin { keeps_ahead, .. } => keeps = *keeps_ahead,
                Piece::Chunk(chunk) => bytes += chunk.rows.len() as i64,
                Piece::Trailer(all) => trailer = Some(all.clone()),
                Piece::Table { .. } => {}
            }
            // A target that has everything already says so at once. What is left is read for its
            // sums alone.
            if result.is_some() {
                continue;
            }
            let said = self.said(piece, &estimate).await?;
            let message = TransferRequest { message: Some(said) };
            let Stream { say, heard, .. } = &mut stream;
            let mut saying = say.send(message);
            loop {
                tokio::select! {
                    sent = &mut saying => {
                        sent.map_err(|_| Broken::Again("the stream ended".to_owned()))?;
                        break;
                    }
                    heard = heard.message() => match heard?.map(|heard| heard.message) {
                        Some(Some(Heard::Result(told))) => {
                            result = Some(told);
                            break;
                        }
                        Some(_) => {}
                        None => return Err(Broken::Again("the stream ended".to_owned())),
                    },
                }
            }
            self.passed(Passed::sent(bytes, &estimate));
            if result.as_ref().is_some_and(|told| told.obstacle.is_some()) {
                break;
            }
        }
        let result = match result {
            Some(result) => result,
            None => loop {
                if let Heard::Result(told) = stream.hear().await? {
                    break told;
                }
            },
        };
        match (result.obstacle, trailer) {
            (Some(obstacle), _) => {
                // Whatever it was, the next attempt does not rest on what went ahead.
                self.mover.forget_ahead(&move_id).await;
                self.end(End::Failed { code: obstacle.code, message: obstacle.message });
            }
            (None, Some(Trailer { tables, marks, changed, .. })) => {
                let (namespace, part, changed) =
                    (self.namespace(), task.part.name(), changed.len());
                tracing::info!(%namespace, part, bytes, keeps_ahead = keeps, changed, "rows were sent");
                if let Some(ahead) = export.ahead() {
                    self.mover.went_ahead(&move_id, ahead, &tables).await;
                }
                self.end(End::Done { tables, marks });
            }
            (None, None) => return Err(Broken::Again("the rows had no end".to_owned())),
        }
        Ok(())
    }

    /// A piece as it is said.
    async fn said(&self, piece: Piece, estimate: &[TableSize]) -> Result<Said, Broken> {
        Ok(match piece {
            Piece::Begin { after, keeps_ahead } => Said::Begin(wire::TransferBegin {
                keeps_ahead,
                after: after.map(convert::position),
                total_bytes: estimate.iter().map(|size| size.bytes).sum(),
                tables: convert::estimate(estimate),
            }),
            Piece::Table { table, fields } => {
                let column =
                    |field: Field| wire::TransferColumn { name: field.name, r#type: field.ty };
                let columns = fields.into_iter().map(column).collect();
                Said::Table(wire::TransferTable { table, columns })
            }
            Piece::Chunk(chunk) => Said::Chunk(wire::TransferChunk {
                sequence: chunk.position.sequence,
                table: chunk.table,
                rows: chunk.rows.to_vec(),
                checksum: chunk.checksum,
                digest: chunk.position.digest,
            }),
            Piece::Trailer(trailer) => {
                let stopped = match self.key.task.part {
                    Part::Ahead => None,
                    Part::Rest => self.stopped_at_us().await?,
                };
                Said::Trailer(wire::TransferTrailer {
                    last: trailer.last.map(convert::position),
                    tables: convert::sums(&trailer.tables),
                    marks: convert::marks(&trailer.marks),
                    stop_time: stopped.and_then(convert::time),
                    changed_runs: convert::runs(trailer.changed),
                })
            }
        })
    }

    /// When the source was last able to make runs.
    async fn stopped_at_us(&self) -> Result<Option<i64>, Broken> {
        let reading = async {
            let mut tx = self.mover.metadata.begin().await?;
            let noted = notes::of(&mut tx, self.namespace(), &self.key.move_id).await?;
            tx.rollback().await;
            Ok::<_, crate::airflow::metadata::Error>(noted.stopped_at_us)
        };
        reading.await.map_err(|error| Broken::Again(crate::words::chain(&error)))
    }

    /// Notes something of the move.
    async fn note(&self, change: impl FnOnce(&mut Notes)) -> Result<(), Broken> {
        let writing = async {
            let mut tx = self.mover.metadata.begin().await?;
            let mut noted = notes::to_change(&mut tx, self.namespace(), &self.key.move_id).await?;
            change(&mut noted);
            notes::write(&mut tx, self.namespace(), &noted).await?;
            tx.commit().await
        };
        writing.await.map_err(|error| Broken::Again(crate::words::chain(&error)))
    }

    /// The target's part.
    pub(super) async fn take_in(&mut self) -> Result<(), Broken> {
        debug_assert_eq!(self.key.side, Side::Target);
        let catalog = Catalog::read(&self.mover.database).await?;
        let order = ImportOrder {
            move_id: self.key.move_id.clone(),
            part: self.key.task.part,
            attempt: self.key.attempt,
            place: *self.places.borrow(),
        };
        let database = self.mover.database.clone();
        // By this it is known later that something is kept.
        self.note(|_| {}).await?;
        let import = match Import::open(&database, &catalog, &self.scope, order).await? {
            Opened::Import(import) => import,
            Opened::Done(installed) => {
                self.end(End::Done { tables: installed.tables, marks: installed.marks });
                return Ok(());
            }
        };
        let open = wire::TransferOpen { kept: import.kept().map(convert::position), ..self.open() };
        let mut stream = self.join(open).await?;
        let installed = match self.install(import, &mut stream).await {
            Ok(installed) => installed,
            Err(Broken::ForGood(error)) => {
                let obstacle = wire::Obstacle {
                    code: error.code().to_owned(),
                    message: crate::words::chain(&error),
                    attempts: 1,
                    since_time: None,
                };
                // The source hears of it from the router too, by the next attempt.
                let result = wire::TransferResult { obstacle: Some(obstacle) };
                if stream.say(Said::Result(result)).await.is_ok() {
                    let _ = finish(stream).await;
                }
                return Err(Broken::ForGood(error));
            }
            Err(again) => return Err(again),
        };
        self.end(installed);
        say_done(stream).await
    }

    /// The target has all: it says so to a source that comes and has not heard of it.
    pub(super) async fn tell_done(&mut self) -> Result<(), Broken> {
        say_done(self.join(self.open()).await?).await
    }

    async fn install(&self, mut import: Box<Import>, stream: &mut Stream) -> Result<End, Broken> {
        let mut estimate = Vec::new();
        loop {
            let piece = match stream.hear().await? {
                Heard::Begin(mut begin) => {
                    begin.tables.truncate(TABLES_MAX);
                    estimate = convert::estimate_of(begin.tables);
                    let after = begin.after.map(convert::position_of);
                    Piece::Begin { after, keeps_ahead: begin.keeps_ahead }
                }
                Heard::Table(table) => {
                    let field = |column: wire::TransferColumn| Field {
                        name: column.name,
                        ty: column.r#type,
                    };
                    let fields = table.columns.into_iter().map(field).collect();
                    Piece::Table { table: table.table, fields }
                }
                Heard::Chunk(chunk) => Piece::Chunk(Chunk {
                    position: convert::position_of(wire::TransferPosition {
                        sequence: chunk.sequence,
                        digest: chunk.digest,
                    }),
                    table: chunk.table,
                    rows: chunk.rows.into(),
                    checksum: chunk.checksum,
                }),
                Heard::Trailer(trailer) => {
                    if let Some(stopped) = &trailer.stop_time {
                        // Before the rows are there: what is installed has a time.
                        let stopped_at_us = micros(stopped);
                        self.note(|noted| noted.stopped_at_us = Some(stopped_at_us)).await?;
                    }
                    let trailer = Trailer {
                        last: trailer.last.map(convert::position_of),
                        tables: convert::sums_of(trailer.tables),
                        marks: convert::marks_of(trailer.marks),
                        changed: convert::runs_of(trailer.changed_runs),
                    };
                    import.ordered(*self.places.borrow());
                    let installed = import.install(trailer).await?;
                    return Ok(End::Done { tables: installed.tables, marks: installed.marks });
                }
                Heard::Joined(_) | Heard::Ack(_) | Heard::Result(_) => {
                    return Err(Error::Interrupted("the source said what is not its to say").into());
                }
            };
            if let Some(sequence) = import.take(piece).await? {
                stream.say(Said::Ack(wire::TransferAck { sequence })).await?;
            }
            self.passed(Passed::taken(&import, &estimate));
        }
    }
}

/// Everything is committed.
async fn say_done(mut stream: Stream) -> Result<(), Broken> {
    stream.say(Said::Result(wire::TransferResult::default())).await?;
    finish(stream).await
}

/// All is said: waits until the router has taken it.
async fn finish(mut stream: Stream) -> Result<(), Broken> {
    stream.say.close_channel();
    while stream.heard.message().await?.is_some() {}
    Ok(())
}
