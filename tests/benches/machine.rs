//! The limits of this machine, measured in the same run.

use std::{
    hint::black_box,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Instant,
};

use aes_gcm::{Aes256Gcm, KeyInit, aead::AeadInOut};
use libp2p::identity::Keypair;

use crate::report::Report;

pub(crate) fn measure(report: &mut Report) -> anyhow::Result<f64> {
    loopback(report)?;
    aes_gcm(report);
    ed25519(report)?;
    flush(report)
}

fn loopback(report: &mut Report) -> anyhow::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut byte = [0];
        while stream.read(&mut byte)? > 0 {
            stream.write_all(&byte)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut times = Vec::new();
    for _ in 0..5_000 {
        let began = Instant::now();
        stream.write_all(&[1])?;
        stream.read_exact(&mut [0])?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    drop(stream);
    drop(echo.join());
    report.times(
        "machine: TCP loopback round trip of a byte",
        times,
        [None; 2],
    );
    Ok(())
}

fn aes_gcm(report: &mut Report) {
    const BYTES: usize = 16 * 1024;
    let cipher = Aes256Gcm::new(&[7; 32].into());
    let mut buffer = vec![0; BYTES];
    let (rounds, began) = (4_000, Instant::now());
    for round in 0..rounds {
        let mut nonce = [0; 12];
        nonce[..4].copy_from_slice(&u32::to_le_bytes(round));
        let tag = cipher.encrypt_inout_detached(&nonce.into(), &[], buffer.as_mut_slice().into());
        black_box(tag.is_ok());
    }
    let rate = f64::from(rounds) * BYTES as f64 / began.elapsed().as_secs_f64() / 1e6;
    report.add("machine: AES-256-GCM, 16 KiB blocks", rate, "MB/s");
}

fn ed25519(report: &mut Report) -> anyhow::Result<()> {
    let key = Keypair::generate_ed25519();
    let (message, rounds) = ([7; 64], 2_000);
    let began = Instant::now();
    for _ in 0..rounds {
        black_box(key.sign(&message)?);
    }
    let signing = began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds);
    let (signature, public) = (key.sign(&message)?, key.public());
    let began = Instant::now();
    for _ in 0..rounds {
        black_box(public.verify(&message, &signature));
    }
    let verifying = began.elapsed().as_secs_f64() * 1e6 / f64::from(rounds);
    report.add("machine: Ed25519 sign", signing, "us");
    report.add("machine: Ed25519 verify", verifying, "us");
    Ok(())
}

/// Measures a disk flush, and returns its median in microseconds.
pub(crate) fn flush(report: &mut Report) -> anyhow::Result<f64> {
    let mut file = tempfile::tempfile()?;
    let mut times = Vec::new();
    for _ in 0..200 {
        let began = Instant::now();
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
    }
    Ok(report.times(
        "machine: write 4 KiB and flush it to disk",
        times,
        [None; 2],
    ))
}
