//! The program `iot-enroll`.

use std::process::ExitCode;

fn main() -> ExitCode {
    iot_enroll::cli::main()
}
