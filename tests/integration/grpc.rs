//! gRPC: that a call costs nothing once its client has left, that its limits are those of every
//! protocol, and that streams end with the server. That it is understood is for the real clients.

use bytes::{BufMut as _, Bytes, BytesMut};
use flate2::Compression;
use flate2::write::GzEncoder;
use h2::client::SendRequest;
use h2::{RecvStream, SendStream};
use http::{HeaderMap, Request};
use modelet_host::grpc::proto::infer_parameter::ParameterChoice;
use modelet_host::grpc::proto::model_infer_request::InferInputTensor;
use modelet_host::grpc::proto::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use prost::Message as _;

use crate::guests::{publish, publish_as, spinner};
use crate::harness::{PATIENCE, Server, eventually, floats, model_file};
use crate::streams::{SPIN_FOR_EVER, emitter, polite_emitter};

/// A guest of so many rounds goes on for minutes.
const FOREVER: u64 = 100_000_000_000;
/// And one of so many for half a second.
const A_WHILE: u64 = 500_000_000;

const INFER: &str = "inference.GRPCInferenceService/ModelInfer";
const STREAM: &str = "inference.GRPCInferenceService/ModelStreamInfer";

const OK: &str = "0";
const DEADLINE_EXCEEDED: &str = "4";
const RESOURCE_EXHAUSTED: &str = "8";
const UNAVAILABLE: &str = "14";

/// A connection that calls are made on.
struct Client {
    calls: SendRequest<Bytes>,
}

/// A call under way.
struct Call {
    sending: SendStream<Bytes>,
    response: h2::client::ResponseFuture,
}

/// The head of an answer, and what is still to come.
struct Answering {
    headers: HeaderMap,
    body: RecvStream,
    buffer: BytesMut,
}

/// What a call came to.
struct Ended {
    headers: HeaderMap,
    messages: Vec<Bytes>,
}

impl Ended {
    fn status(&self) -> &str {
        self.header("grpc-status")
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

impl Client {
    async fn connect(server: &Server) -> Self {
        let stream = tokio::net::TcpStream::connect(server.address()).await.unwrap();
        let (calls, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        Self { calls }
    }

    /// Begins a call with this metadata.
    async fn begin(&self, method: &str, metadata: &[(&str, &str)]) -> Call {
        let mut request = Request::post(format!("http://localhost/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in metadata {
            request = request.header(*name, *value);
        }
        let mut calls = self.calls.clone().ready().await.unwrap();
        let (response, sending) = calls.send_request(request.body(()).unwrap(), false).unwrap();
        Call { sending, response }
    }

    /// A call of one message, to its end.
    async fn call(&self, method: &str, metadata: &[(&str, &str)], frame: Bytes) -> Ended {
        let mut call = self.begin(method, metadata).await;
        call.send(frame, true);
        call.end().await
    }
}

impl Call {
    fn send(&mut self, frame: Bytes, last: bool) {
        self.sending.send_data(frame, last).unwrap();
    }

    /// Leaves.
    fn reset(mut self) {
        self.sending.send_reset(h2::Reason::CANCEL);
    }

    async fn answering(self) -> (SendStream<Bytes>, Answering) {
        let response = tokio::time::timeout(PATIENCE, self.response).await.unwrap().unwrap();
        assert_eq!(response.status(), 200);
        let (parts, body) = response.into_parts();
        (self.sending, Answering { headers: parts.headers, body, buffer: BytesMut::new() })
    }

    async fn end(self) -> Ended {
        let (_sending, answering) = self.answering().await;
        answering.end().await
    }
}

impl Answering {
    /// The next message; none at the end.
    async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some(prefix) = self.buffer.first_chunk::<5>() {
                let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
                let length = length as usize + 5;
                if self.buffer.len() >= length {
                    return Some(self.buffer.split_to(length).freeze().slice(5..));
                }
            }
            let data = tokio::time::timeout(PATIENCE, self.body.data()).await.unwrap();
            let data = data?.unwrap();
            self.body.flow_control().release_capacity(data.len()).unwrap();
            self.buffer.extend_from_slice(&data);
        }
    }

    async fn end(mut self) -> Ended {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        let trailers = tokio::time::timeout(PATIENCE, self.body.trailers()).await.unwrap();
        self.headers.extend(trailers.unwrap().unwrap_or_default());
        Ended { headers: self.headers, messages }
    }
}

/// A message behind its flag and length.
fn framed(flag: u8, message: &[u8]) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(flag);
    frame.put_u32(message.len() as u32);
    frame.put_slice(message);
    frame.freeze()
}

/// The request of a digit.
fn digit(model: &str) -> ModelInferRequest {
    ModelInferRequest {
        model_name: model.into(),
        inputs: vec![InferInputTensor {
            name: "image".into(),
            datatype: "FP32".into(),
            shape: vec![1, 1, 28, 28],
            ..InferInputTensor::default()
        }],
        raw_input_contents: vec![model_file("digit-3.f32").into()],
        ..ModelInferRequest::default()
    }
}

fn request(model: &str) -> Bytes {
    framed(0, &digit(model).encode_to_vec())
}

fn run<T>(test: impl Future<Output = T>) -> T {
    // Of several threads, so that a connection goes on while the test waits for the server.
    tokio::runtime::Runtime::new().unwrap().block_on(test)
}

fn mnist() -> Server {
    let server = Server::start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    server
}

/// A server with a guest that goes on for so many rounds, and these settings.
fn spinning(rounds: u64, config: &str) -> Server {
    let server = Server::builder().config(config).start();
    publish(&server, "spin", &spinner(rounds), 4);
    server
}

/// Waits until so many requests are under way.
fn under_way(server: &Server, count: u64) {
    eventually("the calls", || server.metric("modelet_inflight_requests") == count);
}

#[test]
fn grpc_gives_the_answer_that_rest_gives() {
    let server = mnist();
    let rest =
        server.infer_f32("mnist", "image", &[1, 1, 28, 28], &floats(&model_file("digit-3.f32")));
    let ended =
        run(async { Client::connect(&server).await.call(INFER, &[], request("mnist")).await });
    assert_eq!(ended.status(), OK);
    let answer = ModelInferResponse::decode(&*ended.messages[0]).unwrap();
    assert_eq!(floats(&answer.raw_output_contents[0]), rest);
    assert_eq!(ended.header("modelet-version"), "1");
    assert!(ended.header("server-timing").contains("compute;dur="));
}

#[test]
fn a_client_that_leaves_stops_its_compute() {
    let server = spinning(FOREVER, "");
    run(async {
        for method in [INFER, STREAM] {
            let client = Client::connect(&server).await;
            let mut call = client.begin(method, &[]).await;
            call.send(request("spin"), false);
            let answering = match method {
                // A stream's head is there before its first answer.
                STREAM => Some(call),
                _ => {
                    under_way(&server, 1);
                    call.reset();
                    None
                }
            };
            if let Some(call) = answering {
                let (mut sending, mut answering) = call.answering().await;
                // Reading is what has it computed.
                let reading = tokio::spawn(async move { answering.message().await });
                under_way(&server, 1);
                sending.send_reset(h2::Reason::CANCEL);
                reading.abort();
            }
            eventually("the end of the compute", || server.metric("modelet_instances") == 0);
            assert_eq!(server.metric("modelet_inflight_requests"), 0);
            assert_eq!(server.metric("modelet_inflight_bytes"), 0);
        }
        let gone = "modelet_inferences_total{model=\"spin\",version=\"1\",outcome=\"client_gone\"}";
        assert_eq!(server.count(gone), 2);
    });
}

#[test]
fn a_deadline_of_the_clients_own_ends_the_call_and_is_no_limit_of_the_hosts() {
    let server = spinning(FOREVER, "");
    run(async {
        let client = Client::connect(&server).await;
        for method in [INFER, STREAM] {
            let metadata = [("grpc-timeout", "200m"), ("triton_grpc_error", "true")];
            let ended = client.call(method, &metadata, request("spin")).await;
            assert_eq!(ended.status(), DEADLINE_EXCEEDED, "{method}");
            assert_eq!(ended.header("modelet-limit"), "");
        }
    });
    assert_eq!(server.refusals("limits.request_timeout_ms"), 0);
}

#[test]
fn a_time_that_the_request_gives_ends_it_as_the_clients_own_does() {
    let server = spinning(FOREVER, "");
    let mut asked = digit("spin");
    let choice = Some(ParameterChoice::Int64Param(200_000));
    asked.parameters.insert("timeout".into(), InferParameter { parameter_choice: choice });
    let frame = framed(0, &asked.encode_to_vec());
    run(async {
        let client = Client::connect(&server).await;
        for method in [INFER, STREAM] {
            let metadata = [("triton_grpc_error", "true")];
            let ended = client.call(method, &metadata, frame.clone()).await;
            assert_eq!(ended.status(), DEADLINE_EXCEEDED, "{method}");
            assert_eq!(ended.header("modelet-limit"), "");
        }
    });
    assert_eq!(server.refusals("limits.request_timeout_ms"), 0);
}

/// The messages of a stream: the parameter that says which is the last, or the error.
fn finals(messages: &[Bytes]) -> Vec<Result<bool, String>> {
    let read = |message: &Bytes| {
        let ModelStreamInferResponse { error_message, infer_response } =
            ModelStreamInferResponse::decode(message.clone()).unwrap();
        let Some(answer) = infer_response else { return Err(error_message) };
        assert_eq!(answer.raw_output_contents[0].len(), 4 * 784);
        let last = answer.parameters["triton_final_response"].parameter_choice.as_ref();
        Ok(*last.unwrap() == ParameterChoice::BoolParam(true))
    };
    messages.iter().map(read).collect()
}

#[test]
fn what_a_model_that_generates_emits_is_a_message_each_and_its_answer_the_last() {
    let server = Server::start();
    publish_as(&server, "chat", &emitter(3, ""), Some("chat"));
    publish_as(&server, "plain", &polite_emitter(), None);
    publish_as(&server, "late", &emitter(1, "unreachable"), Some("chat"));
    let config = |model: &str| server.get(&format!("/v2/models/{model}/config")).ok().json();
    let decoupled = |model: &str| config(model)["model_transaction_policy"]["decoupled"].clone();
    assert_eq!((decoupled("chat"), decoupled("plain")), (true.into(), false.into()));
    run(async {
        let client = Client::connect(&server).await;
        let streamed = |model: &'static str| {
            let client = &client;
            async move { client.call(STREAM, &[], request(model)).await }
        };
        let ended = streamed("chat").await;
        let wanted = [Ok(false), Ok(false), Ok(false), Ok(true)];
        assert_eq!((ended.status(), &*finals(&ended.messages)), (OK, &wanted[..]));
        // One that nobody knows to answer more than once answers once.
        assert_eq!(finals(&streamed("plain").await.messages), [Ok(true)]);
        let late = streamed("late").await;
        let answers = finals(&late.messages);
        assert_eq!((late.status(), answers.len(), &answers[0]), (OK, 2, &Ok(false)));
        assert!(answers[1].as_ref().unwrap_err().contains("stopped"), "{answers:?}");
        // Outside of a stream nothing is emitted, and this guest insists.
        assert_eq!(client.call(INFER, &[], request("chat")).await.status(), "13");
    });
    let ok = "modelet_inferences_total{model=\"chat\",version=\"1\",outcome=\"ok\"}";
    assert_eq!(server.count(ok), 1);
    assert_eq!(server.metric("modelet_inflight_bytes"), 0);
}

#[test]
fn a_client_that_leaves_a_stream_of_parts_ends_the_call() {
    let server = Server::start();
    publish_as(&server, "chat", &emitter(1, SPIN_FOR_EVER), Some("chat"));
    run(async {
        let client = Client::connect(&server).await;
        let mut call = client.begin(STREAM, &[]).await;
        call.send(request("chat"), false);
        let (mut sending, mut answering) = call.answering().await;
        assert_eq!(finals(&[answering.message().await.unwrap()]), [Ok(false)]);
        sending.send_reset(h2::Reason::CANCEL);
    });
    eventually("the end of the call", || server.metric("modelet_instances") == 0);
    let gone = "modelet_inferences_total{model=\"chat\",version=\"1\",outcome=\"client_gone\"}";
    eventually("it is counted", || server.count(gone) == 1);
    assert_eq!(server.metric("modelet_inflight_bytes"), 0);
}

#[test]
fn a_guest_waits_for_a_grpc_client_that_does_not_read() {
    const PARTS: u32 = 8_000;
    let server = Server::builder().config("[limits]\nstream_bytes = 20000\n").start();
    publish_as(&server, "chat", &emitter(PARTS, ""), Some("chat"));
    run(async {
        let client = Client::connect(&server).await;
        let mut call = client.begin(STREAM, &[]).await;
        call.send(request("chat"), true);
        let (_sending, mut answering) = call.answering().await;
        answering.message().await.unwrap();
        // Far more than the stream's window takes is there to be sent.
        for _ in 0..200 {
            let held = server.holdings();
            assert_eq!(held.inflight_requests, 1);
            assert!(held.inflight_bytes < 200_000, "{held:?}");
        }
        let ended = answering.end().await;
        assert_eq!((ended.status(), ended.messages.len()), (OK, PARTS as usize));
    });
    eventually("nothing is held", || server.holdings().inflight_bytes == 0);
}

#[test]
fn the_hosts_deadline_is_its_own() {
    let server = spinning(FOREVER, "[limits]\nrequest_timeout_ms = 200\n");
    let ended = run(async {
        let client = Client::connect(&server).await;
        client.call(INFER, &[("grpc-timeout", "1H")], request("spin")).await
    });
    assert_eq!(ended.status(), DEADLINE_EXCEEDED);
    assert_eq!(ended.header("modelet-limit"), "limits.request_timeout_ms");
    assert_eq!(server.refusals("limits.request_timeout_ms"), 1);
}

#[test]
fn a_tenant_at_its_limit_is_told_so_over_grpc_too() {
    let server = spinning(FOREVER, "[limits]\ntenant_requests = 1\n");
    run(async {
        let client = Client::connect(&server).await;
        let mut first = client.begin(INFER, &[]).await;
        first.send(request("spin"), true);
        under_way(&server, 1);
        let second = client.call(INFER, &[], request("spin")).await;
        assert_eq!(second.status(), RESOURCE_EXHAUSTED);
        assert_eq!(second.header("modelet-limit"), "limits.tenant_requests");
        assert_eq!(second.header("grpc-retry-pushback-ms"), "1000");
        first.reset();
        under_way(&server, 0);
    });
    assert_eq!(server.refusals("limits.tenant_requests"), 1);
}

#[test]
fn a_message_over_the_limit_is_refused_as_it_is_and_inflated() {
    let server = Server::builder().config("[limits]\nrequest_body_bytes = 100000\n").start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    let bomb = |bytes: usize| {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        std::io::Write::write_all(&mut encoder, &vec![0; bytes]).unwrap();
        framed(1, &encoder.finish().unwrap())
    };
    run(async {
        let client = Client::connect(&server).await;
        let said = client.call(INFER, &[], framed(0, &[0; 100_001])).await;
        let packed = client.call(INFER, &[("grpc-encoding", "gzip")], bomb(10_000_000)).await;
        for ended in [said, packed] {
            assert_eq!(ended.status(), RESOURCE_EXHAUSTED);
            assert_eq!(ended.header("modelet-limit"), "limits.request_body_bytes");
        }
        assert_eq!(client.call(INFER, &[], request("mnist")).await.status(), OK);
    });
    assert_eq!(server.metric("modelet_inflight_bytes"), 0);
    assert_eq!(server.refusals("limits.request_body_bytes"), 2);
}

#[test]
fn a_message_that_does_not_come_is_not_waited_for_without_end() {
    let server = Server::builder().config("[limits]\nbody_timeout_ms = 100\n").start();
    server.publish_onnx("mnist", "1", &model_file("mnist.onnx"), "rten").ok();
    run(async {
        let client = Client::connect(&server).await;
        for method in [INFER, STREAM] {
            let mut call = client.begin(method, &[]).await;
            call.send(request("mnist").slice(..20), false);
            let ended = call.end().await;
            assert_eq!(ended.status(), DEADLINE_EXCEEDED, "{method}");
            assert_eq!(ended.header("modelet-limit"), "limits.body_timeout_ms");
        }
    });
}

#[test]
fn broken_frames_are_refused_and_the_next_call_succeeds() {
    let server = mnist();
    run(async {
        let client = Client::connect(&server).await;
        let whole = request("mnist");
        let mut unsaid = BytesMut::from(&whole[..]);
        unsaid[0] = 1;
        let mut odd = BytesMut::from(&whole[..]);
        odd[0] = 7;
        let broken = [
            Bytes::new(),
            whole.slice(..3),
            whole.slice(..whole.len() - 1),
            unsaid.freeze(),
            odd.freeze(),
            framed(0, b"no protobuf at all"),
        ];
        for frame in broken {
            let ended = client.call(INFER, &[], frame).await;
            assert_eq!(ended.status(), "3", "{:?}", ended.headers);
        }
        assert_eq!(client.call(INFER, &[], whole).await.status(), OK);
    });
}

#[test]
fn a_stream_that_waits_for_its_guest_or_its_client_is_not_taken_for_a_slow_reader() {
    let server = spinning(A_WHILE, "[limits]\nanswer_timeout_ms = 100\n");
    run(async {
        let client = Client::connect(&server).await;
        let mut call = client.begin(STREAM, &[]).await;
        call.send(request("spin"), false);
        let (mut sending, mut answering) = call.answering().await;
        for last in [false, true] {
            let answer = answering.message().await.unwrap();
            let answer = ModelStreamInferResponse::decode(answer).unwrap();
            assert_eq!(answer.error_message, "");
            if !last {
                // What takes as long as the guest, so that the stream has been idle for longer than
                // an answer may take.
                let other = Client::connect(&server).await;
                assert_eq!(other.call(INFER, &[], request("spin")).await.status(), OK);
                sending.send_data(request("spin"), true).unwrap();
            }
        }
        assert_eq!(answering.end().await.status(), OK);
    });
    assert_eq!(server.refusals("limits.answer_timeout_ms"), 0);
}

#[test]
fn a_stream_without_messages_ends_after_its_idle_time() {
    let server = Server::builder().config("[server]\nstream_idle_timeout_s = 1\n").start();
    let ended = run(async {
        let client = Client::connect(&server).await;
        client.begin(STREAM, &[]).await.end().await
    });
    assert_eq!(ended.status(), DEADLINE_EXCEEDED);
    assert_eq!(ended.header("modelet-limit"), "server.stream_idle_timeout_s");
}

#[test]
fn a_drain_answers_what_was_sent_and_ends_streams_that_wait() {
    let server = spinning(A_WHILE, "");
    run(async {
        let client = Client::connect(&server).await;
        let mut call = client.begin(INFER, &[]).await;
        call.send(request("spin"), true);
        let stream = client.begin(STREAM, &[]).await;
        let (sending, stream) = stream.answering().await;
        let mut watch = client.begin("grpc.health.v1.Health/Watch", &[]).await;
        watch.send(framed(0, b""), true);
        let (_, mut watch) = watch.answering().await;
        assert_eq!(&watch.message().await.unwrap()[..], [8, 1], "serving");
        under_way(&server, 1);
        let stopping = tokio::task::spawn_blocking(move || server.stop());
        assert_eq!(call.end().await.status(), OK);
        assert_eq!(stream.end().await.status(), UNAVAILABLE);
        assert_eq!(watch.end().await.status(), OK);
        drop(sending);
        assert!(stopping.await.unwrap().success());
    });
}

#[test]
fn what_a_rest_client_asks_of_a_grpc_path_has_no_answer() {
    let server = Server::start();
    let answer =
        server.send("POST", &format!("/{INFER}"), &[("content-type", "application/grpc")], b"");
    // HTTP/1 has no streams to carry it.
    answer.error(404);
}

#[test]
fn many_calls_on_one_connection_are_each_answered() {
    let server = mnist();
    run(async {
        let client = Client::connect(&server).await;
        for _ in 0..20 {
            let mut calls = Vec::new();
            for _ in 0..50 {
                let mut call = client.begin(INFER, &[]).await;
                call.send(request("mnist"), true);
                calls.push(call);
            }
            for call in calls {
                assert_eq!(call.end().await.status(), OK);
            }
        }
    });
    assert_eq!(server.metric("modelet_inflight_requests"), 0);
    let counted = "modelet_inferences_total{model=\"mnist\",version=\"1\",outcome=\"ok\"}";
    assert_eq!(server.count(counted), 1000);
}
