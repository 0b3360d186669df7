//! One large upload, and the same bytes hashed, written and synced in one process.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};

use crate::process::Server;

const BLOCK_BYTES: usize = 1 << 20;

/// Sends a file of `size` bytes; how long it took, and by how much the server grew meanwhile.
pub fn send(server: &Server, size: u64) -> (Duration, f64) {
    let before = server.resident_mib();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut peak = before;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(server.resident_mib());
                std::thread::sleep(Duration::from_millis(20));
            }
            peak
        });
        let took = put(server, size);
        done.store(true, Ordering::Relaxed);
        let peak = watch.join().expect("the watch");
        (took, peak - before)
    })
}

fn put(server: &Server, size: u64) -> Duration {
    let mut stream = TcpStream::connect(server.address).expect("a connection");
    let head = format!(
        "PUT /v1/files?filename=bench.bin HTTP/1.1\r\nHost: {}\r\nContent-Length: {size}\r\n\
         Connection: close\r\n\r\n",
        server.address
    );
    let began = Instant::now();
    stream.write_all(head.as_bytes()).expect("the head");
    for_each_block(size, |block| stream.write_all(block).expect("the body"));
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    began.elapsed()
}

/// How long the same bytes take without HTTP and without a service.
pub fn limit(size: u64) -> Duration {
    let mut file = tempfile::tempfile().expect("a file");
    let mut hash = Sha256::new();
    let began = Instant::now();
    for_each_block(size, |block| {
        hash.update(block);
        file.write_all(block).expect("the bytes");
    });
    file.sync_all().expect("the bytes on disk");
    std::hint::black_box(hash.finalize());
    began.elapsed()
}

/// Bytes that are not the same in any two blocks or sizes, so that nothing is known already.
fn for_each_block(size: u64, mut each: impl FnMut(&[u8])) {
    let mut block = vec![0x5a; BLOCK_BYTES];
    let mut left = size;
    while left > 0 {
        block[..8].copy_from_slice(&(left ^ size.rotate_left(32)).to_be_bytes());
        let count = left.min(BLOCK_BYTES as u64) as usize;
        each(&block[..count]);
        left -= count as u64;
    }
}
