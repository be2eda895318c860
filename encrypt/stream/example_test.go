package stream_test

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/crmguard/crmguard/encrypt/keys"
	"github.com/crmguard/crmguard/encrypt/stream"
)

func Example() {
	key := make([]byte, stream.KeySize)
	rand.Read(key)
	place := []byte("default/contract/42/scan.pdf")

	var file bytes.Buffer
	w, _ := stream.NewWriter(&file, key, place, nil)
	io.Copy(w, strings.NewReader("a scan of any size"))
	if err := w.Close(); err != nil { // only now is the stream whole
		fmt.Println(err)
	}

	r, _ := stream.NewReader(&file, key, place, nil)
	text, err := io.ReadAll(r)
	fmt.Printf("%s %v\n", text, err)
	// Output: a scan of any size <nil>
}

func ExampleNewReaderAt() {
	key := make([]byte, stream.KeySize)
	rand.Read(key)
	var file bytes.Buffer
	w, _ := stream.NewWriter(&file, key, nil, nil)
	io.WriteString(w, "page one, page two, page three")
	w.Close()

	// Any part, without the rest; http.ServeContent takes the section.
	r, _ := stream.NewReaderAt(bytes.NewReader(file.Bytes()), int64(file.Len()), key, nil, nil)
	section := io.NewSectionReader(r, 0, r.Size())
	section.Seek(10, io.SeekStart)
	page := make([]byte, 8)
	io.ReadFull(section, page)
	fmt.Printf("%s\n", page)

	// A truncated stream gives nothing at all.
	_, err := stream.NewReaderAt(bytes.NewReader(file.Bytes()), int64(file.Len())-1, key, nil, nil)
	fmt.Println(errors.Is(err, keys.ErrTampered))
	// Output:
	// page two
	// true
}
