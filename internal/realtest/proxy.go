package realtest

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// Proxy passes connections on to a server and can end them. It ends with the test.
type Proxy struct {
	Addr string // host:port

	target string
	left   atomic.Int64 // bytes towards the server until the connection is cut; negative = never
	once   atomic.Bool  // only one connection is
	down   atomic.Bool
	hold   atomic.Bool
	mu     sync.Mutex
	conns  map[net.Conn]bool
	sent   int64
	marks  []int64
}

// NewProxy starts one before a server at host:port.
func NewProxy(t testing.TB, target string) *Proxy {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{Addr: ln.Addr().String(), target: target, conns: map[net.Conn]bool{}}
	p.left.Store(-1)
	t.Cleanup(func() { ln.Close(); p.Cut() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go p.serve(c)
		}
	}()
	return p
}

// CutAfter cuts every connection once n more bytes have gone to the server.
func (p *Proxy) CutAfter(n int64) {
	p.once.Store(false)
	p.left.Store(n)
}

// CutOnce cuts the connection once n more bytes have gone to the server, before the answer comes; later connections stay.
func (p *Proxy) CutOnce(n int64) {
	p.once.Store(true)
	p.left.Store(n)
}

// Marks returns how many bytes had gone to the server after each piece of what was sent, since the last call.
func (p *Proxy) Marks() []int64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	marks := p.marks
	p.sent, p.marks = 0, nil
	return marks
}

// Down refuses connections, or takes them again, and cuts those that are open.
func (p *Proxy) Down(down bool) {
	p.down.Store(down)
	p.left.Store(-1)
	p.Cut()
}

// Hold passes nothing on any more, with connections open, or what comes from then on again.
func (p *Proxy) Hold(hold bool) { p.hold.Store(hold) }

// Cut ends every open connection.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for c := range p.conns {
		c.Close()
	}
	clear(p.conns)
}

func (p *Proxy) serve(c net.Conn) {
	defer c.Close()
	if p.down.Load() {
		return
	}
	s, err := net.Dial("tcp", p.target)
	if err != nil {
		return
	}
	defer s.Close()
	p.mu.Lock()
	p.conns[c], p.conns[s] = true, true
	p.mu.Unlock()
	go func() { io.Copy(c, s); c.Close() }() // closed also when the server is gone
	buf := make([]byte, 16<<10)
	for {
		n, err := c.Read(buf)
		if err != nil {
			return
		}
		if p.hold.Load() {
			continue
		}
		p.mu.Lock()
		p.sent += int64(n)
		p.marks = append(p.marks, p.sent)
		p.mu.Unlock()
		if left := p.left.Load(); left >= 0 {
			if left <= int64(n) {
				// What was asked for is noted, and the connection closed, before the server can answer: whoever waits for
				// that answer may ask for something else as soon as it is there.
				if p.once.Load() {
					p.left.CompareAndSwap(left, -1)
					c.Close()
					s.Write(buf[:left])
					time.Sleep(50 * time.Millisecond) // the server does what it was told
					return
				}
				p.left.CompareAndSwap(left, 0)
				s.Write(buf[:left])
				p.Cut()
				return
			}
			p.left.Add(-int64(n))
		}
		if _, err := s.Write(buf[:n]); err != nil {
			return
		}
	}
}
