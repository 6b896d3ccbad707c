//! What frames other than those of messages do, and what all payloads have in common. Source: RFC 9113, section 6.

use bytes::Bytes;

use crate::http2::frame::{self, Head, flag, setting};
use crate::http2::state::{LEAVING, State};
use crate::http2::{Broken, Reason};

/// The payload without its padding. Source: RFC 9113, section 6.1.
pub(super) fn unpadded(head: Head, payload: &[u8]) -> Result<&[u8], Broken> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let (padding, rest) = payload
        .split_first()
        .ok_or(Broken::size("a padded frame is too short"))?;
    let length = rest
        .len()
        .checked_sub(usize::from(*padding))
        .ok_or(Broken::protocol("the padding is longer than the frame"))?;
    Ok(rest.get(..length).unwrap_or_default())
}

pub(super) fn unpadded_data(head: Head, payload: Bytes) -> Result<Bytes, Broken> {
    if !head.has(flag::PADDED) {
        return Ok(payload);
    }
    let kept = unpadded(head, &payload)?;
    Ok(payload.slice_ref(kept))
}

/// The stream that a priority names.
pub(super) fn depends_on(priority: &[u8]) -> Option<u32> {
    let number = u32::from_be_bytes(*priority.first_chunk()?);
    Some(number & frame::MOST_WINDOW)
}

/// Priorities are read and not used; RFC 9113, section 5.3, has done away with them.
pub(super) fn prioritised(state: &mut State, head: Head, payload: &[u8]) -> Result<(), Broken> {
    if head.stream == 0 {
        return Err(Broken::protocol("PRIORITY without a stream"));
    }
    if payload.len() != 5 {
        return state.fail(head.stream, Reason::FRAME_SIZE_ERROR);
    }
    if depends_on(payload) == Some(head.stream) {
        return state.fail(head.stream, Reason::PROTOCOL_ERROR);
    }
    Ok(())
}

pub(super) fn settings(state: &mut State, head: Head, payload: &[u8]) -> Result<(), Broken> {
    if head.stream != 0 {
        return Err(Broken::protocol("SETTINGS on a stream"));
    }
    if head.has(flag::ACK) {
        if !payload.is_empty() {
            return Err(Broken::size("the answer to SETTINGS is empty"));
        }
        state.agreed();
        return Ok(());
    }
    if !payload.len().is_multiple_of(6) {
        return Err(Broken::size("SETTINGS are six bytes each"));
    }
    for each in payload.chunks_exact(6) {
        let &[n0, n1, v0, v1, v2, v3] = each else { continue };
        let value = u32::from_be_bytes([v0, v1, v2, v3]);
        match u16::from_be_bytes([n0, n1]) {
            setting::HEADER_TABLE_SIZE => state.encoder.resize(value),
            setting::ENABLE_PUSH if value > 1 => return Err(Broken::protocol("ENABLE_PUSH is 0 or 1")),
            setting::INITIAL_WINDOW_SIZE if value > frame::MOST_WINDOW => {
                return Err(Broken::new(
                    Reason::FLOW_CONTROL_ERROR,
                    "INITIAL_WINDOW_SIZE is too large",
                ));
            }
            setting::INITIAL_WINDOW_SIZE => state.rewindow(value)?,
            setting::MAX_FRAME_SIZE if !(frame::LEAST_FRAME..=frame::MOST_FRAME).contains(&value) => {
                return Err(Broken::protocol("MAX_FRAME_SIZE is not in its range"));
            }
            setting::MAX_FRAME_SIZE => state.max_frame = value,
            setting::MAX_CONCURRENT_STREAMS => state.max_open = value,
            // The rest is advice, or for servers, or not known.
            _ => {}
        }
    }
    frame::settings_ack(state.out.buffer());
    Ok(())
}

pub(super) fn ping(state: &mut State, head: Head, payload: &[u8]) -> Result<(), Broken> {
    if head.stream != 0 {
        return Err(Broken::protocol("PING on a stream"));
    }
    let payload: [u8; 8] = payload
        .try_into()
        .map_err(|_| Broken::size("PING is eight bytes"))?;
    if !head.has(flag::ACK) {
        frame::ping(flag::ACK, payload, state.out.buffer());
    } else if payload == LEAVING {
        state.leave();
    }
    Ok(())
}

pub(super) fn goaway(state: &mut State, head: Head, payload: &[u8]) -> Result<(), Broken> {
    if head.stream != 0 {
        return Err(Broken::protocol("GOAWAY on a stream"));
    }
    let (last, reason) = payload
        .split_first_chunk::<4>()
        .and_then(|(last, rest)| Some((*last, *rest.first_chunk::<4>()?)))
        .ok_or(Broken::size("GOAWAY is eight bytes or more"))?;
    let last = u32::from_be_bytes(last) & frame::MOST_WINDOW;
    state.left(last, Reason(u32::from_be_bytes(reason)));
    Ok(())
}
