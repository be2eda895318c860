package token

// RowOf makes the stored row of a token of fixed values, for the golden file.
func (m *Manager) RowOf(g Grant, id, text string) Record {
	r := m.record(g, id)
	r.Hash = mac(m.keys[0][0], r.ID, text)
	r.MAC = rowMAC(m.keys[0][1], &r, r.Hash)
	return r
}

// ChecksumOf is the checksum of a text.
var ChecksumOf = checksum
