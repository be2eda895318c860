package web

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

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
