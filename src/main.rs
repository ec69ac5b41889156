//! The program `iot-enroll`.

fn main() {}
