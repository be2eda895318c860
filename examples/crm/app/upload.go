package app

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/transfer"
	"github.com/crmguard/crmguard/encrypt/stream"
)

// Bounds of files that people upload.
const (
	MostUpload   = 256 << 20 // bytes of one file
	KeepUpload   = time.Hour // until it is imported
	mostUploads  = 3         // of one employee that are not imported yet; the oldest goes
	uploadFolder = "uploads" // in the data folder
	longestName  = 120       // characters of a file's name that are kept
	uploadAD     = "crmguard upload "
)

// ErrUploadSize says that a file is larger than MostUpload.
var ErrUploadSize = errors.New("crm: the file is too large")

// Upload is a file that somebody uploaded and that is not imported yet. It lies in the data folder, sealed in segments under a key that is in memory only until the import begins; then the
// key is kept with the import, sealed under the import's own person. The file goes when the import is over, is undone, or is not begun within an hour, and with the program.
type Upload struct {
	ID    string // opaque
	Type  string // of the records
	Name  string // of the file, as its sender calls it
	Size  int64
	owner crm.UUID
	path  string
	key   []byte
	at    time.Time
}

// FileOptions say how a file is read. The zero value finds it out.
type FileOptions struct {
	Encoding string // of separated values
	Comma    rune   // of separated values
	Sheet    string // of a workbook, by its name; "": the first
}

func (a *App) uploads() string { return a.Config.path(uploadFolder) }

// Receive takes a file from r for an employee, who may have a few at once. Errors: ErrUploadSize, those of r and of the disk.
func (a *App) Receive(owner crm.UUID, typ, name string, r io.Reader) (u *Upload, err error) {
	var b [stream.KeySize + 12]byte
	_, _ = rand.Read(b[:]) // never fails
	name = filepath.Base(strings.ReplaceAll(name, `\`, "/"))
	if long := []rune(name); len(long) > longestName {
		name = string(long[:longestName])
	}
	name = strings.ToValidUTF8(strings.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7f {
			return -1
		}
		return r
	}, name), "")
	if name == "." || name == "/" {
		name = ""
	}
	u = &Upload{ID: hex.EncodeToString(b[stream.KeySize:]), Type: typ, Name: name, owner: owner, key: b[:stream.KeySize], at: time.Now()}
	if err := os.MkdirAll(a.uploads(), 0o700); err != nil {
		return nil, fmt.Errorf("crm: uploads: %w", err)
	}
	u.path = filepath.Join(a.uploads(), u.ID)
	f, err := os.OpenFile(u.path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, fmt.Errorf("crm: uploads: %w", err)
	}
	defer func() {
		err = errors.Join(err, f.Close())
		if err != nil {
			_ = os.Remove(u.path)
			u = nil
		}
	}()
	w, err := stream.NewWriter(f, u.key, u.ad(), nil)
	if err != nil {
		return u, err
	}
	if u.Size, err = io.Copy(w, io.LimitReader(r, MostUpload+1)); err != nil {
		return u, err
	}
	if u.Size > MostUpload {
		return u, ErrUploadSize
	}
	if err := w.Close(); err != nil {
		return u, err
	}
	a.imports.keep(u)
	return u, nil
}

func (u *Upload) ad() []byte { return []byte(uploadAD + u.ID) }

// UploadOf returns an upload of an employee: crm.ErrNotFound when it is another's, or gone.
func (a *App) UploadOf(owner crm.UUID, id string) (*Upload, error) {
	a.imports.mu.Lock()
	defer a.imports.mu.Unlock()
	u := a.imports.uploads[id]
	if u == nil || u.owner != owner || time.Since(u.at) > KeepUpload {
		return nil, crm.ErrNotFound
	}
	return u, nil
}

// Forget deletes an upload that is not to be imported.
func (a *App) Forget(u *Upload) {
	a.imports.mu.Lock()
	defer a.imports.mu.Unlock()
	a.imports.drop(u)
}

// keep notes an upload; the oldest of somebody who has too many goes, and so do those that were never imported.
func (j *importJobs) keep(u *Upload) {
	j.mu.Lock()
	defer j.mu.Unlock()
	var oldest *Upload
	n := 0
	for _, o := range j.uploads {
		if time.Since(o.at) > KeepUpload {
			j.drop(o)
			continue
		}
		if o.owner != u.owner {
			continue
		}
		n++
		if oldest == nil || o.at.Before(oldest.at) {
			oldest = o
		}
	}
	if n >= mostUploads {
		j.drop(oldest)
	}
	j.uploads[u.ID] = u
}

func (j *importJobs) drop(u *Upload) {
	delete(j.uploads, u.ID)
	_ = os.Remove(u.path) // what stays is swept at the next start, and nobody has its key
}

// Open opens an upload as a source of rows, from its begin, and says which encoding it has. done ends it. Errors: transfer.ErrFile, those of the disk.
func (u *Upload) Open(o FileOptions) (src transfer.Source, told string, done func(), err error) {
	f, err := os.Open(u.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, "", nil, crm.ErrNotFound
	}
	if err != nil {
		return nil, "", nil, fmt.Errorf("crm: uploads: %w", err)
	}
	info, err := f.Stat()
	if err != nil {
		f.Close()
		return nil, "", nil, fmt.Errorf("crm: uploads: %w", err)
	}
	clear, err := stream.NewReaderAt(f, info.Size(), u.key, u.ad(), nil) // it looks at the end first: a file that was cut does not open
	if err != nil {
		f.Close()
		return nil, "", nil, err
	}
	src, told, err = OpenImport(io.NewSectionReader(clear, 0, clear.Size()), o)
	if err != nil {
		f.Close()
		return nil, "", nil, err
	}
	return src, told, func() {
		if x, ok := src.(io.Closer); ok {
			x.Close()
		}
		f.Close()
	}, nil
}

// Glance is what one look over a file shows before anything is done with it.
type Glance struct {
	Told    string   // encoding, or XLSX
	Comma   rune     // 0 in a workbook
	Sheets  []string // of a workbook
	Sheet   string   // the one that is read
	Header  []string
	Samples [][]string // the first rows, at most ImportSamples
	Rows    int64      // 0: too many to count at once
}

// glanceFor is how long rows are counted.
const glanceFor = 4 * time.Second

// Look reads a file once. Errors: as those of Open.
func (u *Upload) Look(o FileOptions) (Glance, error) {
	src, told, done, err := u.Open(o)
	if err != nil {
		return Glance{}, err
	}
	defer done()
	g := Glance{Told: told, Header: src.Header()}
	if c, ok := src.(interface{ Comma() rune }); ok {
		g.Comma = c.Comma()
	}
	if x, ok := src.(interface {
		Sheets() []string
		Sheet() string
	}); ok {
		g.Sheets, g.Sheet = x.Sheets(), x.Sheet()
	}
	until := time.Now().Add(glanceFor)
	for row, err := range src.Rows() {
		var re *transfer.RowError
		if err != nil && !errors.As(err, &re) {
			return g, err
		}
		g.Rows++
		if err == nil && len(g.Samples) < ImportSamples {
			g.Samples = append(g.Samples, row.Cells)
		}
		if g.Rows%1000 == 0 && time.Now().After(until) {
			g.Rows = 0
			break
		}
	}
	return g, nil
}
