//! A question on the terminal whose answer is not shown.

use std::io::{self, IsTerminal, Write};

use zeroize::Zeroizing;

/// Asks on the terminal of the process, and reads the answer without an echo. `None` if there is none, or standard error is
/// not a terminal: then nobody expects a question.
///
/// Standard input is not read: it may be a list of devices. The echo ends before the question appears, so that a program can
/// answer it at once.
#[cfg(unix)]
pub(super) fn ask_hidden(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    use rustix::{
        process::{Signal, kill_current_process_group},
        termios::{LocalModes, OptionalActions, SpecialCodeIndex, tcgetattr, tcsetattr},
    };
    let terminal = std::fs::File::options().read(true).write(true).open("/dev/tty");
    let Some(mut terminal) = terminal.ok().filter(|_| io::stderr().is_terminal()) else { return Ok(None) };
    let before = tcgetattr(&terminal)?;
    let mut hidden = before.clone();
    // Keys that send a signal are read instead: the process would end with the echo off.
    hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG | LocalModes::IEXTEN);
    hidden.special_codes[SpecialCodeIndex::VMIN] = 1;
    hidden.special_codes[SpecialCodeIndex::VTIME] = 0;
    tcsetattr(&terminal, OptionalActions::Flush, &hidden)?;
    let _ = write!(anstream::stderr().lock(), "{question}");
    let read = read_answer(&mut terminal, &before.special_codes);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    let _ = writeln!(anstream::stderr().lock());
    if let Some(answer) = read? {
        return Ok(Some(answer));
    }
    // As the terminal does it. If the process goes on, the signal is handled or ignored.
    kill_current_process_group(Signal::INT)?;
    Err(io::Error::other("it was interrupted"))
}

/// Reads a line byte by byte, as a terminal does. `None` if a key asks the process to end.
#[cfg(unix)]
fn read_answer(
    terminal: &mut std::fs::File,
    codes: &rustix::termios::SpecialCodes,
) -> io::Result<Option<Zeroizing<String>>> {
    use rustix::termios::SpecialCodeIndex;
    const BACKSPACE: u8 = 0x08;
    const DELETE: u8 = 0x7f;
    // Longer than any PIN, so that no copy of the start is left behind.
    let mut answer = Zeroizing::new(Vec::with_capacity(1024));
    let is = |byte: u8, code| codes[code] == byte;
    loop {
        let mut byte = [0];
        io::Read::read_exact(terminal, &mut byte)?;
        match byte[0] {
            b'\n' | b'\r' => break,
            byte if is(byte, SpecialCodeIndex::VINTR) || is(byte, SpecialCodeIndex::VQUIT) => return Ok(None),
            byte if is(byte, SpecialCodeIndex::VEOF) => break,
            byte if is(byte, SpecialCodeIndex::VKILL) => answer.clear(),
            byte if is(byte, SpecialCodeIndex::VERASE) || byte == BACKSPACE || byte == DELETE => {
                // The last character in UTF-8.
                while answer.pop().is_some_and(|byte| byte & 0xc0 == 0x80) {}
            }
            byte if byte.is_ascii_control() => {}
            byte => answer.push(byte),
        }
    }
    let text = std::str::from_utf8(&answer).map_err(|_| io::Error::other("it is not valid UTF-8"))?;
    Ok(Some(Zeroizing::new(text.to_owned())))
}

#[cfg(not(unix))]
pub(super) fn ask_hidden(question: &str) -> io::Result<Option<Zeroizing<String>>> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        return Ok(None);
    }
    let _ = write!(anstream::stderr().lock(), "{question}");
    console::Term::stderr().read_secure_line().map(Zeroizing::new).map(Some)
}
