package sftpstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	"golang.org/x/crypto/ssh/knownhosts"

	"github.com/crmguard/crmguard/backup"
	"github.com/crmguard/crmguard/backup/backupkey"
)

const (
	connections = 4                // at once
	hello       = 30 * time.Second // to connect and log in
)

// pool makes connections and keeps idle ones.
type pool struct {
	addr   string
	config *ssh.ClientConfig
	key    ssh.Signer // nil = the agent
	stall  time.Duration
	slots  chan struct{}

	mu     sync.Mutex
	idle   []*conn
	closed bool
}

// conn is a connection, used by one at a time.
type conn struct {
	*sftp.Client
	ssh    *ssh.Client
	net    *watched
	broken bool // not to be used again
}

// watched notes when something came or went.
type watched struct {
	net.Conn
	last atomic.Int64 // Unix nanoseconds
	gone atomic.Bool
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.note(n, err)
	return n, err
}

func (w *watched) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.note(n, err)
	return n, err
}

func (w *watched) note(n int, err error) {
	if n > 0 {
		w.last.Store(time.Now().UnixNano())
	}
	if err != nil {
		w.gone.Store(true)
	}
}

func (c *conn) dead() bool { return c.broken || c.net.gone.Load() }

// close ends it at once, without the farewell that waits for a server.
func (c *conn) close() {
	c.net.gone.Store(true)
	c.net.Close()
	c.ssh.Close()
	c.Client.Close()
}

func newPool(addr, user string, o *Options) (*pool, error) {
	p := &pool{addr: addr, stall: o.Stall, slots: make(chan struct{}, connections)}
	if p.stall <= 0 {
		p.stall = time.Minute
	}
	p.config = &ssh.ClientConfig{User: user, Timeout: hello}
	if err := p.pin(o); err != nil {
		return nil, err
	}
	if o.KeyFile != "" {
		info, err := os.Stat(o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("sftpstore: key file: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 && os.PathSeparator == '/' {
			return nil, fmt.Errorf("sftpstore: %w", backupkey.ErrInsecure)
		}
		pem, err := os.ReadFile(o.KeyFile)
		if err != nil {
			return nil, fmt.Errorf("sftpstore: key file: %w", err)
		}
		p.key, err = ssh.ParsePrivateKey(pem)
		var locked *ssh.PassphraseMissingError
		if errors.As(err, &locked) {
			return nil, errors.New("sftpstore: the key file has a passphrase; use an agent")
		}
		if err != nil {
			return nil, errors.New("sftpstore: the key file is no private key")
		}
	}
	return p, nil
}

// pin sets which host keys are taken.
func (p *pool) pin(o *Options) error {
	var check ssh.HostKeyCallback
	switch {
	case o.HostKey != "" && o.KnownHosts != "":
		return errors.New("sftpstore: a host key and a known_hosts file are given")
	case o.HostKey != "":
		key, _, _, _, err := ssh.ParseAuthorizedKey([]byte(o.HostKey))
		if err != nil {
			return errors.New("sftpstore: the host key is not of the form \"ssh-ed25519 AAAA…\"")
		}
		check, p.config.HostKeyAlgorithms = ssh.FixedHostKey(key), algorithms(key)
	default:
		file := o.KnownHosts
		if file == "" {
			home, err := os.UserHomeDir()
			if err != nil {
				return fmt.Errorf("sftpstore: known_hosts: %w", err)
			}
			file = filepath.Join(home, ".ssh", "known_hosts")
		}
		var err error
		if check, err = knownhosts.New(file); err != nil {
			return fmt.Errorf("sftpstore: known_hosts: %w", err)
		}
		p.config.HostKeyAlgorithms = known(check, p.addr)
	}
	p.config.HostKeyCallback = func(host string, remote net.Addr, key ssh.PublicKey) error {
		if err := check(host, remote, key); err != nil {
			return fmt.Errorf("%w: %v", ErrHostKey, err)
		}
		return nil
	}
	return nil
}

// algorithms are the ways to sign with a key.
func algorithms(key ssh.PublicKey) []string {
	if key.Type() == ssh.KeyAlgoRSA {
		return []string{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256}
	}
	return []string{key.Type()}
}

// known returns the ways to sign with the keys that are known for a host, so that it shows one of these; nil = whatever it likes.
func known(check ssh.HostKeyCallback, addr string) (all []string) {
	var ke *knownhosts.KeyError
	if errors.As(check(addr, &net.TCPAddr{IP: net.IPv4zero}, noKey{}), &ke) {
		for _, k := range ke.Want {
			all = append(all, algorithms(k.Key)...)
		}
	}
	return all
}

// noKey is a key that no host has.
type noKey struct{}

func (noKey) Type() string                        { return "none" }
func (noKey) Marshal() []byte                     { return []byte("none") }
func (noKey) Verify([]byte, *ssh.Signature) error { return ErrHostKey }

// dial connects and logs in.
func (p *pool) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, min(hello, p.stall))
	defer cancel()
	config := *p.config
	if p.key != nil {
		config.Auth = []ssh.AuthMethod{ssh.PublicKeys(p.key)}
	} else {
		socket, err := (&net.Dialer{}).DialContext(ctx, "unix", os.Getenv("SSH_AUTH_SOCK"))
		if err != nil {
			return nil, errors.New("sftpstore: no key file is given, and no agent answers at SSH_AUTH_SOCK")
		}
		defer socket.Close()
		config.Auth = []ssh.AuthMethod{ssh.PublicKeysCallback(agent.NewClient(socket).Signers)}
	}
	raw, err := (&net.Dialer{}).DialContext(ctx, "tcp", p.addr)
	if err != nil {
		return nil, fmt.Errorf("sftpstore: connect: %w", err)
	}
	w := &watched{Conn: raw}
	w.note(1, nil)
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	defer stop()
	sc, channels, requests, err := ssh.NewClientConn(w, p.addr, &config)
	if err != nil {
		raw.Close()
		switch {
		case errors.Is(err, ErrHostKey), strings.Contains(err.Error(), "no common algorithm for host key"):
			return nil, ErrHostKey
		case strings.Contains(err.Error(), "unable to authenticate"):
			return nil, fmt.Errorf("%w: the key is not accepted", ErrDenied)
		case ctx.Err() != nil:
			return nil, fmt.Errorf("sftpstore: connect: %w", ctx.Err())
		}
		return nil, fmt.Errorf("sftpstore: connect: %w", err)
	}
	client := ssh.NewClient(sc, channels, requests)
	// Writes that are under way at once may leave holes when one fails: the file is thrown away then.
	files, err := sftp.NewClient(client, sftp.UseConcurrentWrites(true))
	if err != nil {
		client.Close()
		if ctx.Err() != nil {
			return nil, fmt.Errorf("sftpstore: connect: %w", ctx.Err())
		}
		return nil, fmt.Errorf("sftpstore: the host does not speak SFTP: %w", err)
	}
	return &conn{Client: files, ssh: client, net: w}, nil
}

// do runs f on a connection. It runs it again on a new one when one that was idle turns out to be lost, unless *done says
// that what cannot be repeated was under way.
func (p *pool) do(ctx context.Context, done *bool, f func(*conn) error) error {
	select {
	case p.slots <- struct{}{}:
		defer func() { <-p.slots }()
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		c, err := p.take()
		used := c != nil
		if err == nil && c == nil {
			c, err = p.dial(ctx)
		}
		if err != nil {
			return err
		}
		err = p.run(ctx, c, f)
		if !c.dead() && !lost(err) {
			p.give(c)
			return translate(err)
		}
		c.close()
		switch {
		case err == nil:
			return nil
		case ctx.Err() != nil:
			return ctx.Err()
		case !lost(err):
			return translate(err)
		case !used || done != nil && *done:
			return fmt.Errorf("sftpstore: the connection was lost: %w", err)
		}
	}
}

// run ends the connection when ctx does, or when nothing moves.
func (p *pool) run(ctx context.Context, c *conn, f func(*conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { c.net.gone.Store(true); c.net.Close() })
	defer stop()
	c.net.note(1, nil)
	ended := make(chan struct{})
	defer close(ended)
	go func() {
		for {
			wait := time.Until(time.Unix(0, c.net.last.Load()).Add(p.stall))
			if wait <= 0 {
				c.net.gone.Store(true)
				c.net.Close()
				return
			}
			select {
			case <-ended:
				return
			case <-time.After(wait):
			}
		}
	}()
	return f(c)
}

func (p *pool) take() (*conn, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errors.New("sftpstore: the bucket is closed")
	}
	for len(p.idle) > 0 {
		c := p.idle[len(p.idle)-1]
		p.idle = p.idle[:len(p.idle)-1]
		if !c.dead() {
			return c, nil
		}
		c.close()
	}
	return nil, nil
}

func (p *pool) give(c *conn) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		c.close()
		return
	}
	p.idle = append(p.idle, c)
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, c := range p.idle {
		c.close()
	}
	p.idle = nil
}

// lost tells whether an error is of the connection: any that is neither the server's answer nor ours.
func lost(err error) bool {
	if err == nil {
		return false
	}
	for _, ours := range []error{backup.ErrNotFound, backup.ErrExists, backup.ErrFull, backup.ErrLocked, ErrNoFolder, ErrDenied, ErrHostKey,
		fs.ErrNotExist, fs.ErrPermission, context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, ours) {
			return false
		}
	}
	var se *sftp.StatusError
	if errors.As(err, &se) {
		return se.FxCode() == sftp.ErrSSHFxNoConnection || se.FxCode() == sftp.ErrSSHFxConnectionLost
	}
	return true
}

// translate makes the errors that package backup knows of those of the server.
func translate(err error) error {
	switch {
	case err == nil, errors.Is(err, backup.ErrNotFound), errors.Is(err, backup.ErrExists), errors.Is(err, backup.ErrFull),
		errors.Is(err, backup.ErrLocked), errors.Is(err, ErrNoFolder), errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return err
	case errors.Is(err, fs.ErrNotExist):
		return backup.ErrNotFound
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%w: the host does not permit it", ErrDenied)
	case strings.HasPrefix(err.Error(), "sftpstore: "):
		return err
	}
	return fmt.Errorf("sftpstore: %w", err)
}
