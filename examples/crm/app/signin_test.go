package app

import (
	"context"
	"net/netip"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz/authn/session"
)

// TestRefusedEvenly: a refusal takes whole steps, whether there is such an account or not; a sign-in that goes well does not wait.
func TestRefusedEvenly(t *testing.T) {
	ctx := t.Context()
	a, err := Open(ctx, Config{Data: t.TempDir(), Addr: "localhost:0"})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, a.Close()) })
	logins, err := a.Populate(ctx)
	require.NoError(t, err)
	from := func(addr string) Visitor { return Visitor{Visit: session.Visit{Addr: netip.MustParseAddr(addr)}} }
	for login, addr := range map[string]string{logins[0].Login: "192.0.2.1", "nobody@demo.example": "192.0.2.2"} {
		began := time.Now()
		_, err := a.SignIn(ctx, login, "not the password of anybody", from(addr))
		assert.ErrorIs(t, err, ErrSignIn)
		assert.GreaterOrEqual(t, time.Since(began), refusedIn, login)
	}
	ended, stop := context.WithCancel(ctx)
	stop()
	began := time.Now()
	evenly(ended, 0)
	assert.Less(t, time.Since(began), refusedIn, "nobody waits for who has gone")
	out, err := a.SignIn(ctx, logins[0].Login, logins[0].Password, from("192.0.2.3"))
	require.NoError(t, err)
	assert.NotNil(t, out.Session)
	assert.Contains(t, out.Session.Roles, OneTimeRole)
}

// TestDevices: the cookie of known devices knows what it was given for, up to four accounts, and nothing that somebody made up.
func TestDevices(t *testing.T) {
	a := &App{signing: signing{device: make([]byte, 32)}}
	cookie := ""
	for _, login := range []string{"a@x.example", "b@x.example", "c@x.example", "d@x.example"} {
		assert.Empty(t, a.deviceOf(cookie, login))
		cookie = a.knowDevice(cookie, login)
		assert.NotEmpty(t, a.deviceOf(cookie, login))
	}
	assert.Equal(t, cookie, a.knowDevice(cookie, "a@x.example"))
	fifth := a.knowDevice(cookie, "e@x.example")
	assert.Empty(t, a.deviceOf(fifth, "a@x.example"), "the oldest goes")
	assert.Equal(t, a.deviceOf(cookie, "b@x.example"), a.deviceOf(fifth, "b@x.example"), "it is the same device")
	assert.Len(t, fifth, len(cookie))
	other := &App{signing: signing{device: []byte("another key of 32 bytes, made up")}}
	for _, bad := range []string{"", "x", cookie + "AAAA", cookie[:20], other.knowDevice("", "a@x.example")} {
		assert.Empty(t, a.deviceOf(bad, "a@x.example"))
	}
}
