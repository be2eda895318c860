package webauthn

// MACOf is the MAC of a row.
func (p *Passkeys) MACOf(r *Record) []byte { return p.rowMAC(r) }
