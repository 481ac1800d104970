//! The few ways in which a protocol buffer writes a field.
//!
//! Two dozen fields of TensorBoard's messages are written and none is read, which is less than a
//! code generator would need to be told.

/// A message, its fields in the order in which they were added.
#[derive(Debug, Clone, Default)]
pub(super) struct Message(Vec<u8>);

/// How a field's value is laid out.
#[derive(Debug, Clone, Copy)]
enum Wire {
    Varint = 0,
    EightBytes = 1,
    Length = 2,
    FourBytes = 5,
}

impl Message {
    pub fn new() -> Self {
        Self::default()
    }

    /// A whole number, an enum or a `bool`.
    pub fn int(mut self, field: u32, value: u64) -> Self {
        self.tag(field, Wire::Varint);
        self.varint(value);
        self
    }

    pub fn double(mut self, field: u32, value: f64) -> Self {
        self.tag(field, Wire::EightBytes);
        self.0.extend(value.to_le_bytes());
        self
    }

    pub fn float(mut self, field: u32, value: f32) -> Self {
        self.tag(field, Wire::FourBytes);
        self.0.extend(value.to_le_bytes());
        self
    }

    /// Bytes or a text.
    pub fn bytes(mut self, field: u32, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        self.tag(field, Wire::Length);
        self.varint(value.len() as u64);
        self.0.extend(value);
        self
    }

    pub fn message(self, field: u32, value: Message) -> Self {
        self.bytes(field, value.0)
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn tag(&mut self, field: u32, wire: Wire) {
        self.varint(u64::from(field << 3 | wire as u32));
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
    }
}
