//! `google.protobuf.Any`: its type beside its fields, or beside the form of a well-known type.

use super::super::base64;
use super::super::plan::{Form, wire};
use super::failure::Done;
use super::input::Input;
use super::{UNMASKED, Writer};

impl Writer<'_> {
    pub(super) fn any(&mut self, bytes: Input<'_>) -> Done {
        let (mut url, mut body) = (&[][..], Input::new(&[]));
        let mut input = bytes;
        while !input.is_done() {
            match input.tag()? {
                (1, wire::LEN) => url = input.delimited()?.bytes(),
                (2, wire::LEN) => body = input.delimited()?,
                (number, wire) => input.skip(number, wire, self.depth)?,
            }
        }
        self.enter()?;
        self.out.byte(b'{');
        let open = self.out.len();
        if !url.is_empty() || !body.is_done() {
            self.out.bytes(b"\"@type\":");
            self.string(url)?;
            self.out.byte(b',');
            self.any_body(url, body)?;
        }
        self.out.end(open, b'}');
        self.depth -= 1;
        Ok(())
    }

    fn any_body(&mut self, url: &[u8], body: Input<'_>) -> Done {
        let name = url.rsplit(|&byte| byte == b'/').next().unwrap_or_default();
        let id = std::str::from_utf8(name)
            .ok()
            .and_then(|name| self.plan.message(name));
        match id {
            Some(id) if self.plan.messages[id.0 as usize].form == Form::Plain => {
                return self.members(&self.plan.messages[id.0 as usize], body, UNMASKED);
            }
            Some(id) => {
                self.out.bytes(b"\"value\":");
                self.message(id.0, body, UNMASKED)?;
            }
            // An answer does not fail because its reader must know a type that the gateway does not.
            None => {
                self.out.bytes(b"\"value\":");
                base64::encode(body.bytes(), &mut self.out);
            }
        }
        self.out.byte(b',');
        Ok(())
    }
}
