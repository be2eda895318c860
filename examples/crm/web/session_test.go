package web

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestAttempts(t *testing.T) {
	now := time.Unix(1_000_000, 0)
	a := newAttempts()
	a.now = func() time.Time { return now }
	var taken atomic.Int32
	var wg sync.WaitGroup
	for range 120 { // many at once are counted before they are made
		wg.Go(func() {
			if a.take("x@example.com", "1.2.3.4") {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	assert.Equal(t, int32(maxAttempts), taken.Load())
	assert.True(t, a.take("x@example.com", "5.6.7.8"), "another address is not held up")
	assert.True(t, a.take("y@example.com", "1.2.3.4"), "nor another account")
	now = now.Add(attemptsWait + time.Second)
	for range maxAttempts - 1 {
		assert.True(t, a.take("x@example.com", "1.2.3.4"))
	}
	a.succeeded("x@example.com", "1.2.3.4")
	assert.True(t, a.take("x@example.com", "1.2.3.4"))
}

func TestLocal(t *testing.T) {
	for _, ok := range []string{"/", "/customers", "/customers/1?x=y", "/搜索"} {
		assert.Equal(t, ok, local(ok))
	}
	for _, bad := range []string{
		"", "//evil.example", "https://evil.example", "/\\evil.example", "/\t/evil.example", "/\n/evil.example", "\\/evil.example",
		"/\r//evil.example", "/ /evil.example", "evil", "javascript:alert(1)", "/\x00/evil.example", "/\x7f/evil.example",
	} {
		assert.Equal(t, "/", local(bad), "%q", bad)
	}
}

func TestMinorAndPoints(t *testing.T) {
	for text, want := range map[string]int64{"": 0, "1": 100, "1234.5": 123450, "1,234.56": 123456} {
		n, err := minor(text)
		assert.NoError(t, err)
		assert.Equal(t, want, n)
	}
	for _, text := range []string{"-1", "1.234", "x", "1e3", "9223372036854775808"} {
		_, err := minor(text)
		assert.Error(t, err, text)
	}
	for text, want := range map[string]int64{"": 0, "13": 1300, "2.5": 250, "0.01": 1} {
		n, err := points(text)
		assert.NoError(t, err)
		assert.Equal(t, want, n)
	}
	for _, text := range []string{"x", "0.001", "1/3", "999999e-1000000", "1e400"} {
		_, err := points(text)
		assert.Error(t, err, text)
	}
}
