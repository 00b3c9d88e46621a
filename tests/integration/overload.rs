//! Overload: ten times as many calls as can be answered change nothing for those that are.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::LocalSet;

use crate::guests::{publish, spinner};
use crate::harness::Server;
use crate::wire::{Client, DIGIT, Said, infer_bytes};

/// How many times what can be answered is asked for.
const TIMES: f64 = 10.0;
/// How long.
const SECONDS: u64 = 60;
/// How long where `MODELET_SOAK` is set.
const SOAK_SECONDS: u64 = 300;
/// How long the peak is measured for.
const PEAK_SECONDS: u64 = 10;
/// What a call may take, in milliseconds.
const DEADLINE_MS: u64 = 2_000;
/// What a call costs: about 20 ms of a processor, so that refusing nine others, which each cost some
/// 50 us here and as much there, does not show.
const ROUNDS: u64 = 60_000_000;
/// Calls under way at once, past which the generator would only measure itself.
const MAX_OUTSTANDING: usize = 3_000;

/// What many calls came to.
#[derive(Debug, Default)]
struct Tally {
    /// How long each took that was answered, in microseconds.
    answered_us: Vec<u64>,
    refused: u64,
    late: u64,
    /// Answers of other kinds, and refusals without Retry-After.
    wrong: Vec<Said>,
    /// Calls that ended without an answer.
    broken: Vec<String>,
    /// Calls that were not made, because too many were under way.
    unsent: u64,
}

impl Tally {
    fn add(&mut self, said: std::io::Result<Said>, took: Duration) {
        match said {
            Ok(Said { status: 200, .. }) => self.answered_us.push(took.as_micros() as u64),
            Ok(Said { status: 429 | 503, retry_after: true }) => self.refused += 1,
            Ok(Said { status: 504, .. }) => self.late += 1,
            Ok(said) => self.wrong.push(said),
            Err(error) => self.broken.push(error.to_string()),
        }
    }

    fn percentile_us(&self, percent: usize) -> u64 {
        let mut sorted = self.answered_us.clone();
        sorted.sort_unstable();
        sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
    }
}

/// So many clients that each call again as soon as they are answered; gives answers a second.
async fn closed_loop(server: &Server, request: &[u8], clients: usize, seconds: u64) -> f64 {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let local = LocalSet::new();
    let begun = Instant::now();
    for _ in 0..clients {
        let (tally, request) = (Rc::clone(&tally), request.to_vec());
        let address = server.address().to_owned();
        local.spawn_local(async move {
            let mut client = Client::connect(&address).await.unwrap();
            while begun.elapsed().as_secs() < seconds {
                let called = Instant::now();
                let said = client.exchange(&request).await;
                tally.borrow_mut().add(said, called.elapsed());
            }
        });
    }
    local.await;
    let tally = tally.borrow();
    assert!(tally.broken.is_empty() && tally.wrong.is_empty(), "{tally:?}");
    tally.answered_us.len() as f64 / begun.elapsed().as_secs_f64()
}

/// Calls at a steady rate, whether or not those before are answered. Gives what they came to, how many
/// were answered a second, and the server's memory at each second.
async fn open_loop(
    server: &Server,
    request: &[u8],
    rate: f64,
    seconds: u64,
) -> (Tally, f64, Vec<u64>) {
    let tally = Rc::new(RefCell::new(Tally::default()));
    let idle = Rc::new(RefCell::new(VecDeque::<Client>::new()));
    let outstanding = Rc::new(());
    let request: Rc<[u8]> = request.into();
    let local = LocalSet::new();
    let begun = Instant::now();
    let mut memory = Vec::new();
    let mut answered = 0;
    let generate = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(5));
        let mut made = 0u64;
        while begun.elapsed().as_secs() < seconds {
            ticks.tick().await;
            if memory.len() < begun.elapsed().as_secs() as usize {
                memory.push(server.resident_bytes());
            }
            let due = (begun.elapsed().as_secs_f64() * rate) as u64;
            for _ in std::mem::replace(&mut made, due)..due {
                if Rc::strong_count(&outstanding) > MAX_OUTSTANDING {
                    tally.borrow_mut().unsent += 1;
                    continue;
                }
                let (tally, idle) = (Rc::clone(&tally), Rc::clone(&idle));
                let (request, address) = (Rc::clone(&request), server.address().to_owned());
                let outstanding = Rc::clone(&outstanding);
                tokio::task::spawn_local(async move {
                    let called = Instant::now();
                    let client = idle.borrow_mut().pop_back();
                    let said = match client {
                        Some(client) => Ok(client),
                        None => Client::connect(&address).await,
                    };
                    let said = match said {
                        Err(error) => Err(error),
                        Ok(mut client) => {
                            let said = client.exchange(&request).await;
                            if said.is_ok() {
                                idle.borrow_mut().push_back(client);
                            }
                            said
                        }
                    };
                    tally.borrow_mut().add(said, called.elapsed());
                    drop(outstanding);
                });
            }
        }
        answered = tally.borrow().answered_us.len();
    };
    local.run_until(generate).await;
    let took = begun.elapsed().as_secs_f64();
    local.await;
    (Rc::into_inner(tally).unwrap().into_inner(), answered as f64 / took, memory)
}

#[test]
fn ten_times_the_load_leaves_goodput_latency_and_memory_as_they_are() {
    let soak = std::env::var_os("MODELET_SOAK").is_some();
    let seconds = if soak { SOAK_SECONDS } else { SECONDS };
    let instances = std::thread::available_parallelism().unwrap().get() as u32;
    let config = format!("[limits]\nrequest_timeout_ms = {DEADLINE_MS}\n");
    let server = Server::builder().config(&config).start();
    publish(&server, "m", &spinner(ROUNDS), instances);
    let request = infer_bytes("/v2/models/m/infer", &DIGIT);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let clients = 2 * instances as usize;
    runtime.block_on(closed_loop(&server, &request, clients, 2));
    let peak = runtime.block_on(closed_loop(&server, &request, clients, PEAK_SECONDS));
    let rate = peak * TIMES;
    let (tally, goodput, memory) = runtime.block_on(open_loop(&server, &request, rate, seconds));
    let (p50, p99) = (tally.percentile_us(50), tally.percentile_us(99));
    println!(
        "peak {peak:.1}/s, asked {rate:.1}/s, goodput {goodput:.1}/s ({:.3}), p50 {p50} us, p99 {p99} us, \
         refused {}, late {}, unsent {}, memory {:?}..{:?}",
        goodput / peak,
        tally.refused,
        tally.late,
        tally.unsent,
        memory.first(),
        memory.last()
    );
    assert!(tally.broken.is_empty() && tally.wrong.is_empty(), "{tally:?}");
    assert_eq!(tally.unsent, 0);
    assert!(goodput >= 0.9 * peak, "{goodput} of {peak}");
    assert!(p99 <= DEADLINE_MS * 1000, "{p99} us");
    assert!(tally.refused > 0);
    // What is let in is let in to be answered.
    assert!(tally.late as f64 <= 0.01 * tally.answered_us.len() as f64, "{} late", tally.late);
    // After a quarter of the time all buffers and connections are there.
    let settled = memory[memory.len() / 4];
    let last = *memory.last().unwrap();
    assert!(last <= settled + (16 << 20), "{settled} bytes became {last}");
    server.infer_f32("m", "image", &DIGIT, &[0.0; 784]);
}
