package localkek

// Parse reads the text of a key file and writes it again.
func Parse(b []byte) (first int, raw [][]byte, id string, err error) {
	f, err := parse(b)
	if err != nil {
		return 0, nil, "", err
	}
	return f.first, f.raw, f.id, nil
}

// Write writes a key file.
var Write = write
