package export

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// SyslogOptions of NewSyslog. Nil means the zero value of each field.
type SyslogOptions struct {
	Hostname string // of this machine in the messages; "": os.Hostname
	AppName  string // "": crmguard
	Overlap  uint64 // records sent again after a start or failure; 0: 4096
	MaxBytes int    // longest message; a longer one is refused and stops the Pump; 0: 8192, the default of rsyslog
	ID       string // of the structured data element; "": crmguard@32473, the number for documentation
}

// Syslog is a Sink that sends RFC 5424 messages over TLS with octet counting
// (RFC 5425). The receiver acknowledges nothing: the Pump sends the last Overlap
// records again after a start or failure, and receivers drop by the index in
// the structured data what they have.
type Syslog struct {
	addr string
	tls  *tls.Config
	opts SyslogOptions

	mu   sync.Mutex
	conn *syslogConn
	err  error // what ended the last connection
}

// syslogConn is one connection. Its reader sees the end of it, and takes what
// the receiver sends: unread bytes would make closing destroy what was sent.
type syslogConn struct {
	*tls.Conn
	down chan struct{} // closed when the receiver closed or failed
}

// NewSyslog returns a sink that connects to addr, a host and port (6514 by
// custom), with its first Deliver. A TLS configuration is required: without
// RootCAs the roots of the system are trusted, and ServerName is the host of
// addr when empty.
func NewSyslog(addr string, config *tls.Config, opts *SyslogOptions) (*Syslog, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, errors.New("export: syslog: the address has no host and port")
	}
	if config == nil {
		return nil, errors.New("export: syslog: TLS is required")
	}
	s := &Syslog{addr: addr, tls: config.Clone()}
	if s.tls.ServerName == "" {
		s.tls.ServerName = host
	}
	s.tls.MinVersion = max(s.tls.MinVersion, tls.VersionTLS12)
	if opts != nil {
		s.opts = *opts
	}
	o := &s.opts
	if o.Hostname == "" {
		o.Hostname, _ = os.Hostname()
	}
	if o.AppName == "" {
		o.AppName = "crmguard"
	}
	if o.Overlap == 0 {
		o.Overlap = 4096
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 8192
	}
	if o.ID == "" {
		o.ID = "crmguard@32473"
	}
	o.Hostname, o.AppName = headerField(o.Hostname, 255), headerField(o.AppName, 48)
	if headerField(o.ID, 32) != o.ID || strings.ContainsAny(o.ID, `="]`) {
		return nil, errors.New("export: syslog: not the name of a structured data element")
	}
	return s, nil
}

// headerField makes s fit into the header of a message: printable ASCII without
// spaces.
func headerField(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' {
			return -1
		}
		return r
	}, s)
	if s = s[:min(len(s), limit)]; s == "" {
		return "-"
	}
	return s
}

// Severities of syslog for those of OCSF, in the facility "log audit".
var syslogSeverity = [...]int{5, 6, 5, 4, 3}

const facility = 13

// appendMessage renders a record as one frame.
func (s *Syslog) appendMessage(b []byte, r *Record) ([]byte, error) {
	sev := syslogSeverity[0]
	if r.Severity >= 0 && r.Severity < len(syslogSeverity) {
		sev = syslogSeverity[r.Severity]
	}
	msg := fmt.Appendf(nil, "<%d>1 %s %s %s - audit [%s index=\"%d\" leaf=\"%s\"] ", facility*8+sev,
		r.Time.UTC().Format("2006-01-02T15:04:05.000000Z"), s.opts.Hostname, s.opts.AppName, s.opts.ID, r.Index, hex.EncodeToString(r.Leaf[:]))
	msg = append(msg, r.Body...)
	if len(msg) > s.opts.MaxBytes {
		return b, fmt.Errorf("export: syslog: the message for event %d has %d bytes, more than MaxBytes", r.Index, len(msg))
	}
	b = strconv.AppendInt(b, int64(len(msg)), 10)
	b = append(b, ' ')
	return append(b, msg...), nil
}

// Deliver implements Sink. It connects when there is no connection, and returns
// when all is written; see Overlap.
func (s *Syslog) Deliver(ctx context.Context, records []Record) error {
	if err := checkLines(records); err != nil || len(records) == 0 {
		return err
	}
	var b []byte
	var err error
	for i := range records {
		if b, err = s.appendMessage(b, &records[i]); err != nil {
			return err
		}
	}
	s.mu.Lock()
	conn := s.conn
	s.mu.Unlock()
	if conn == nil {
		if conn, err = s.dial(ctx); err != nil {
			return fmt.Errorf("export: syslog: %w", err)
		}
	}
	select {
	case <-conn.down:
		return s.fail(conn, errors.New("the receiver closed the connection"))
	default:
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetWriteDeadline(time.Unix(1, 0)) })
	_, err = conn.Write(b)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return s.fail(conn, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.err = nil
	return nil
}

func (s *Syslog) dial(ctx context.Context) (*syslogConn, error) {
	raw, err := (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", s.addr)
	if err != nil {
		return nil, err
	}
	if tcp, ok := raw.(*net.TCPConn); ok {
		_ = tcp.SetWriteBuffer(128 << 10) // less that may be lost under way
	}
	conn := &syslogConn{Conn: tls.Client(raw, s.tls), down: make(chan struct{})}
	if err := conn.HandshakeContext(ctx); err != nil {
		raw.Close()
		return nil, err
	}
	go func() {
		defer close(conn.down)
		buf := make([]byte, 512)
		for {
			if _, err := conn.Read(buf); err != nil {
				return
			}
		}
	}()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn = conn
	return conn, nil
}

// fail ends a connection.
func (s *Syslog) fail(conn *syslogConn, cause error) error {
	err := fmt.Errorf("export: syslog: %w", cause)
	_ = conn.NetConn().Close() // without the wait for a last TLS record
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.conn == conn {
		s.conn = nil
	}
	s.err = err
	return err
}

// Overlap implements Unacknowledged.
func (s *Syslog) Overlap() uint64 { return s.opts.Overlap }

// Err implements Unacknowledged.
func (s *Syslog) Err() error {
	s.mu.Lock()
	conn := s.conn
	err := s.err
	s.mu.Unlock()
	if conn == nil {
		return err
	}
	select {
	case <-conn.down:
		return s.fail(conn, errors.New("the receiver closed the connection"))
	default:
		return err
	}
}

// Close says good-bye and waits up to two seconds for the receiver to have read
// everything.
func (s *Syslog) Close() error {
	s.mu.Lock()
	conn := s.conn
	s.conn = nil
	s.mu.Unlock()
	if conn == nil {
		return nil
	}
	_ = conn.SetWriteDeadline(time.Now().Add(time.Second))
	err := conn.CloseWrite()
	if tcp, ok := conn.NetConn().(*net.TCPConn); ok && err == nil {
		err = tcp.CloseWrite()
	}
	select {
	case <-conn.down:
	case <-time.After(2 * time.Second):
	}
	_ = conn.NetConn().Close()
	return err
}
