package sms

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/crmguard/crmguard/authz/authn"
)

// FileSender appends messages to the file sms.jsonl or email.jsonl of a folder, one JSON object a line, for
// development. The file has mode 0600, and one that others may read is refused. It is safe for concurrent use.
type FileSender struct {
	method authn.Method
	path   string
	mu     sync.Mutex
}

// NewFileSender returns a sender for authn.SMS or authn.Email. The folder is made with mode 0700 when it is missing.
func NewFileSender(dir string, method authn.Method) (*FileSender, error) {
	if !method.Weak() {
		return nil, errors.New("sms: a sender sends by SMS or e-mail")
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, errors.New("sms: no folder for messages")
	}
	return &FileSender{method: method, path: filepath.Join(dir, string(method)+".jsonl")}, nil
}

// Path is the file.
func (f *FileSender) Path() string { return f.path }

// Method implements Sender.
func (f *FileSender) Method() authn.Method { return f.method }

// Send implements Sender.
func (f *FileSender) Send(ctx context.Context, m Message) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	line, err := json.Marshal(struct {
		To      string    `json:"to"`
		Code    string    `json:"code"`
		Purpose string    `json:"purpose"`
		Expires time.Time `json:"expires"`
	}{m.To, m.Code, m.Purpose, m.Expires.UTC()})
	if err != nil {
		return errors.New("sms: message is no JSON")
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	file, err := os.OpenFile(f.path, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return errors.New("sms: the file for messages does not open")
	}
	info, err := file.Stat()
	if err == nil && (!info.Mode().IsRegular() || info.Mode().Perm()&0o077 != 0) {
		err = errors.New("sms: others may read the file for messages")
	}
	if err == nil {
		_, err = file.Write(append(line, '\n'))
	}
	return errors.Join(err, file.Close())
}
