//! The Syft gateway beside two plain relays of its shape, by turns in one run, with one driver for all:
//! one in Python on a library of the original clients, and one in Rust on the libraries of the gateway.
//!
//! The comparison is not of like with like. The gateway checks the signature of each letter, and has
//! the letter on disk, flushed, before anybody gets it; the relays read for whom a frame is and pass
//! it on. They are the floor: what JSON over WebSockets costs with no promise at all. What the disk
//! takes for one flush is measured in the same run.

mod driver;
pub(crate) mod relay;

use std::{collections::HashSet, net::SocketAddr, process::Stdio, time::Duration};

use anyhow::Context;
use futures::{SinkExt, StreamExt, future::try_join_all, stream::SplitStream};
use pimesh_tests::{
    PATIENCE, Pi, World,
    foreign::{python, python_script},
    syft,
};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::Command,
    sync::{Semaphore, mpsc},
    time::Instant,
};

use self::driver::{Http, Letter, Socket, User, heard, refused};
use crate::{
    child::Child,
    machine,
    packaged::{resident_kib, settled},
    report::{Report, Target},
};

/// The limits of the gateway are not what is measured. A smaller RSA key is made sooner; no figure
/// here has to do with it.
const SETTINGS: &str = "[gateway.syft.limits]\nframes_per_second = 1000000\n\
                        frames_burst = 1000000\nregistrations_burst = 65536\n[identity]\nrsa_bits = 2048";

/// How often each figure is measured at each server, by turns.
const ROUNDS: usize = 3;

/// Letters of one user to another, in one round.
const LETTERS: usize = 10_000;

/// How many of them may be under way.
const WINDOW: usize = 256;

/// Letters sent one after the other, in one round.
const SINGLE: usize = 300;

/// Pairs of users, one of whom writes to the other at a modest rate.
const MODEST: usize = 25;

/// How often each of them writes, and how many letters.
const MODEST_INTERVAL: Duration = Duration::from_millis(100);
const MODEST_LETTERS: usize = 30;

/// Logins in one round, and how many at once.
const LOGINS: usize = 2_000;
const LOGINS_AT_ONCE: usize = 8;

/// Users whose memory is measured.
const CROWD: usize = 1_000;

/// Where two users connect, who may be at two gateways.
#[derive(Clone, Copy)]
struct Ways {
    from: SocketAddr,
    to: SocketAddr,
}

/// What is asked for one server or one pair of gateways, and the figures of each round.
struct Subject {
    name: &'static str,
    ways: Ways,
    /// The Rust relay has no login.
    has_login: bool,
    /// Pairs that have not written yet: what a client did not confirm before it went is delivered
    /// to it again, and would be taken for what is measured.
    fresh: Vec<[User; 2]>,
    rates: Vec<f64>,
    single: Vec<f64>,
    modest: Vec<f64>,
    logins: Vec<f64>,
}

/// Whatever has to stay alive while a server is measured.
enum Server {
    Gateway(Pi),
    Python(tokio::process::Child),
    Rust(Child),
}

impl Server {
    fn pid(&self) -> anyhow::Result<u32> {
        let pid = match self {
            Self::Gateway(pi) => pi.child.id(),
            Self::Python(child) => child.id(),
            Self::Rust(child) => child.pid(),
        };
        pid.context("it runs")
    }
}

pub(crate) async fn measure(report: &mut Report) -> anyhow::Result<()> {
    let flush = machine::flush(report)?;
    speed(report, flush).await?;
    memory(report).await
}

async fn speed(report: &mut Report, flush: f64) -> anyhow::Result<()> {
    let world = World::new()?;
    let (one, first) = gateway(&world, "pi-1").await?;
    let (two, second) = gateway(&world, "pi-2").await?;
    two.join(&one).await?;
    for pi in [&one, &two] {
        pi.wait_for_peers(1).await?;
        settled(pi.child.id().context("it runs")?).await?;
    }
    let (_python, in_python) = python_relay().await?;
    let (_rust, in_rust) = rust_relay().await?;
    let subject = |name, from, to, has_login| Subject::new(name, Ways { from, to }, has_login);
    let mut subjects = [
        subject("one gateway", first, first, true),
        subject("two gateways", first, second, true),
        subject("Python relay", in_python, in_python, true),
        subject("Rust relay", in_rust, in_rust, false),
    ];
    for subject in &mut subjects {
        subject.prepare([&one, &two]).await?;
    }
    for _ in 0..ROUNDS {
        for subject in &mut subjects {
            subject.round().await?;
        }
    }
    compare(report, &subjects, flush);
    Ok(())
}

/// Adds the figures of all, and how they are to those of the relays.
fn compare(report: &mut Report, subjects: &[Subject; 4], flush: f64) {
    let [one, two, python, rust] = subjects;
    let mut rates = Vec::new();
    for subject in subjects {
        let rate = median(subject.rates.clone());
        let what = format!("{}: letters, {WINDOW} under way", subject.name);
        report.add(what, rate, "1/s");
        rates.push(rate);
    }
    for (name, ours) in [(one.name, rates[0]), (two.name, rates[1])] {
        for (relay, theirs) in [(python.name, rates[2]), (rust.name, rates[3])] {
            report.add(format!("{name} / {relay}: letters"), ours / theirs, "x");
        }
    }
    for (flushes, subject) in [(1.0, one), (2.0, two), (0.0, python), (0.0, rust)] {
        let what = format!("{}: one letter at a time", subject.name);
        // One flush at each gateway, and the time that a message of the mesh has beside its own.
        let most = Target::AtMost(flushes * flush + 1500.0);
        let target = (flushes > 0.0).then_some(most);
        report.times(&what, subject.single.clone(), [target, None]);
        let what = format!("{}: {MODEST} pairs at 10/s each", subject.name);
        report.times(&what, subject.modest.clone(), [None; 2]);
    }
    let [ours, theirs] = [one, python].map(|subject| {
        let logins = median(subject.logins.clone());
        let what = format!("{}: logins, {LOGINS_AT_ONCE} at once", subject.name);
        report.add(what, logins, "1/s");
        logins
    });
    // The relay checks nothing; a gateway in Rust should not be slower all the same.
    let what = format!("{} / {}: logins", one.name, python.name);
    report.aim(what, ours / theirs, "x", Target::AtLeast(1.0));
}

impl Subject {
    fn new(name: &'static str, ways: Ways, has_login: bool) -> Self {
        let prefix = name.replace(' ', "-").to_lowercase();
        let pair = |number| ["from", "to"].map(|way| User::new(format!("{number}-{way}-{prefix}")));
        Self {
            name,
            ways,
            has_login,
            fresh: (0..ROUNDS * (2 + MODEST)).map(pair).collect(),
            rates: Vec::new(),
            single: Vec::new(),
            modest: Vec::new(),
            logins: Vec::new(),
        }
    }

    /// Registers everybody, each at his gateway, and waits until both gateways know all.
    async fn prepare(&self, gateways: [&Pi; 2]) -> anyhow::Result<()> {
        if !self.has_login {
            return Ok(());
        }
        for (place, at) in [self.ways.from, self.ways.to].into_iter().enumerate() {
            let mut http = Http::open(at).await?;
            for pair in &self.fresh {
                pair[place].register(&mut http).await?;
            }
        }
        if self.ways.from == self.ways.to {
            return Ok(());
        }
        for (gateway, place) in gateways.into_iter().zip([1, 0]) {
            let knowing = async {
                while !self.are_known(gateway, place).await? {
                    // No event tells of users who are not online.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                anyhow::Ok(())
            };
            let known = tokio::time::timeout(PATIENCE, knowing).await;
            known.context("a gateway does not hear of the users of the other")??;
        }
        Ok(())
    }

    async fn are_known(&self, gateway: &Pi, place: usize) -> anyhow::Result<bool> {
        let users = gateway.client.users().await?;
        let known: HashSet<&str> = users.iter().map(|user| user.name.as_str()).collect();
        let is_known = |pair: &[User; 2]| known.contains(pair[place].name.as_str());
        Ok(self.fresh.iter().all(is_known))
    }

    async fn round(&mut self) -> anyhow::Result<()> {
        let (sockets, letters) = self.pair(LETTERS).await?;
        self.rates.push(flat_out(sockets, letters).await?);
        let (sockets, letters) = self.pair(SINGLE).await?;
        self.single.extend(one_at_a_time(sockets, letters).await?);
        let mut pairs = Vec::new();
        for number in 0..MODEST {
            let (sockets, letters) = self.pair(MODEST_LETTERS).await?;
            let phase = MODEST_INTERVAL * u32::try_from(number)? / u32::try_from(MODEST)?;
            pairs.push(paced(sockets, letters, phase));
        }
        self.modest.extend(try_join_all(pairs).await?.concat());
        if self.has_login && self.ways.from == self.ways.to {
            self.logins.push(self.log_in().await?);
        }
        Ok(())
    }

    /// Connects a fresh pair, and writes so many letters from one to the other.
    async fn pair(&mut self, letters: usize) -> anyhow::Result<([Socket; 2], Vec<Letter>)> {
        let [from, to] = self.fresh.pop().context("pairs enough")?;
        let sockets = [
            enter(&from, self.ways.from, self.has_login).await?,
            enter(&to, self.ways.to, self.has_login).await?,
        ];
        Ok((sockets, from.letters(&to, letters)))
    }

    /// Logs users in again and again over kept connections; returns how often in a second.
    async fn log_in(&self) -> anyhow::Result<f64> {
        let mut waiting = Vec::new();
        for number in 0..LOGINS_AT_ONCE {
            let user = User::new(format!("{number}-login-{}", self.name.replace(' ', "-")));
            let mut http = Http::open(self.ways.from).await?;
            // In the rounds behind the first he is there already.
            drop(user.register(&mut http).await);
            waiting.push(async move {
                for _ in 0..LOGINS / LOGINS_AT_ONCE {
                    user.login(&mut http).await?;
                }
                anyhow::Ok(())
            });
        }
        let begun = Instant::now();
        try_join_all(waiting).await?;
        Ok(LOGINS as f64 / begun.elapsed().as_secs_f64())
    }
}

async fn enter(user: &User, at: SocketAddr, has_login: bool) -> anyhow::Result<Socket> {
    let token = if has_login {
        user.login(&mut Http::open(at).await?).await?
    } else {
        user.name.clone()
    };
    user.connect(at, &token).await
}

/// Sends letters, so many of them under way at once; returns how many arrived in a second.
async fn flat_out([from, to]: [Socket; 2], letters: Vec<Letter>) -> anyhow::Result<f64> {
    let ((mut sink, own), (_sink, mut stream)) = (from.split(), to.split());
    let window = Semaphore::new(WINDOW);
    let begun = Instant::now();
    let sending = async {
        for letter in &letters {
            if window.available_permits() == 0 {
                sink.flush().await?;
            }
            window.acquire().await?.forget();
            sink.feed(letter.frame.clone()).await?;
        }
        anyhow::Ok(sink.flush().await?)
    };
    let hearing = async {
        for letter in &letters {
            heard(&mut stream, letter).await?;
            window.add_permits(1);
        }
        Ok(letters.len() as f64 / begun.elapsed().as_secs_f64())
    };
    until_heard(sending, own, hearing).await
}

/// Returns the times from sending a letter to hearing it, in microseconds.
async fn one_at_a_time([from, to]: [Socket; 2], letters: Vec<Letter>) -> anyhow::Result<Vec<f64>> {
    let ((mut sink, own), (_sink, mut stream)) = (from.split(), to.split());
    let both = async {
        let mut times = Vec::with_capacity(letters.len());
        for letter in letters {
            let begun = Instant::now();
            sink.send(letter.frame.clone()).await?;
            heard(&mut stream, &letter).await?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    };
    until_heard(async { Ok(()) }, own, both).await
}

/// The same, with a letter at each tick, whether or not the one before has come.
async fn paced(
    [from, to]: [Socket; 2],
    letters: Vec<Letter>,
    phase: Duration,
) -> anyhow::Result<Vec<f64>> {
    let ((mut sink, own), (_sink, mut stream)) = (from.split(), to.split());
    let (sent, mut sent_at) = mpsc::unbounded_channel();
    let sending = async {
        let mut ticks = tokio::time::interval_at(Instant::now() + phase, MODEST_INTERVAL);
        for letter in &letters {
            ticks.tick().await;
            sent.send(Instant::now())?;
            sink.send(letter.frame.clone()).await?;
        }
        anyhow::Ok(())
    };
    let hearing = async {
        let mut times = Vec::with_capacity(letters.len());
        for letter in &letters {
            heard(&mut stream, letter).await?;
            let begun = sent_at.recv().await.context("it was sent")?;
            times.push(begun.elapsed().as_secs_f64() * 1e6);
        }
        Ok(times)
    };
    until_heard(sending, own, hearing).await
}

/// Sends, and reads for the sender, until all is heard.
async fn until_heard<T>(
    sending: impl Future<Output = anyhow::Result<()>>,
    own: SplitStream<Socket>,
    hearing: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let failing = async {
        match sending.await {
            Ok(()) => std::future::pending().await,
            Err(error) => error,
        }
    };
    tokio::select! {
        heard = hearing => heard,
        error = failing => Err(error),
        error = refused(own) => Err(error),
    }
}

/// Measures what a connected user costs, at servers that have done nothing else.
async fn memory(report: &mut Report) -> anyhow::Result<()> {
    let world = World::new()?;
    let (pi, at) = gateway(&world, "pi-1").await?;
    let (python, in_python) = python_relay().await?;
    let (rust, in_rust) = rust_relay().await?;
    for (name, server, at, has_login) in [
        ("one gateway", Server::Gateway(pi), at, true),
        ("Python relay", python, in_python, true),
        ("Rust relay", rust, in_rust, false),
    ] {
        let pid = server.pid()?;
        settled(pid).await?;
        let before = resident_kib(pid)?;
        let users = crowd(at, has_login).await?;
        let grown = resident_kib(pid)? - before;
        drop(users);
        let what = format!("{name}: memory of a user, {CROWD} connected");
        report.add(what, grown / CROWD as f64, "KiB");
    }
    Ok(())
}

/// Connects many users, each of whom gets a letter of the one before.
async fn crowd(at: SocketAddr, has_login: bool) -> anyhow::Result<Vec<Socket>> {
    let users: Vec<User> = (0..CROWD)
        .map(|n| User::new(format!("{n}-crowd")))
        .collect();
    let mut sockets = Vec::new();
    let mut http = Http::open(at).await;
    for user in &users {
        if let (true, Ok(http)) = (has_login, &mut http) {
            user.register(http).await?;
        }
        sockets.push(enter(user, at, has_login).await?);
    }
    for number in 1..CROWD {
        let letters = users[number - 1].letters(&users[number], 1);
        let (before, own) = sockets.split_at_mut(number);
        for letter in &letters {
            before[number - 1].send(letter.frame.clone()).await?;
            heard(&mut own[0], letter).await?;
        }
    }
    Ok(sockets)
}

async fn gateway(world: &World, name: &str) -> anyhow::Result<(Pi, SocketAddr)> {
    let (pi, url) = syft::start(world, name, SETTINGS).await?;
    let address = url.strip_prefix("http://").context("in clear")?;
    Ok((pi, address.parse()?))
}

async fn python_relay() -> anyhow::Result<(Server, SocketAddr)> {
    let mut child = Command::new(python().await?)
        .arg(python_script("syft_relay.py"))
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let stdout = child.stdout.take().context("stdout is piped")?;
    let line = BufReader::new(stdout).lines().next_line().await?;
    let port: u16 = line.context("a port")?.parse()?;
    Ok((Server::Python(child), ([127, 0, 0, 1], port).into()))
}

async fn rust_relay() -> anyhow::Result<(Server, SocketAddr)> {
    let mut child = Child::start(&["--syft-relay"])?;
    let address = child.answer().await?;
    Ok((Server::Rust(child), address))
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
