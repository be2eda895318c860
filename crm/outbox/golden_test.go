package outbox

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/crm"
)

var update = flag.Bool("update", false, "write the golden file anew")

// TestFormat1: messages of format version 1, each with what a receiver gets of it, are as they were when the version was fixed.
func TestFormat1(t *testing.T) {
	id := func(s string) crm.UUID {
		u, err := crm.ParseUUID(s)
		require.NoError(t, err)
		return u
	}
	made := time.Date(2026, 11, 26, 21, 7, 52, 123456789, time.UTC)
	own := `{"fields":{"city":"York","name":"Bob <b>Ray</b> 鲍勃","open_value":9007199254740993,"phone":"138****5678"},"masked":["phone"],"erased":[]}`
	other := `{"fields":{"signatory":"Ann Lee"},"masked":[],"erased":["witness"]}`
	e := Endpoint{Secret: crm.NewText("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")}
	rotated := e
	rotated.OldSecret, rotated.OldUntil = crm.NewText("whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="), made.Add(time.Hour)
	var out strings.Builder
	for _, c := range []struct {
		what string
		e    Endpoint
		d    Delivery
	}{
		{"changed", e, Delivery{RecordType: "customer", Act: ActChanged, RecordVersion: 1, Payload: crm.NewText(own)}},
		{"changed, of two persons", rotated, Delivery{RecordType: "contract", Act: ActChanged, RecordVersion: 12, Payload: crm.NewText(own), Other: crm.NewText(other)}},
		{"deleted", e, Delivery{RecordType: "customer", Act: ActDeleted, RecordVersion: 2}},
		{"test", e, Delivery{RecordType: "endpoint", Act: ActTest}},
	} {
		c.d.Record, c.d.Made = id("01a219af-ad94-7de3-9713-9d2187f0be09"), made
		body, reason := c.d.body()
		require.Empty(t, reason)
		signed, ok := c.e.signatures("8a0f1b1e-7f5c-8a3e-9a55-0d6c8f1f2b3c", made, body)
		require.True(t, ok)
		fmt.Fprintf(&out, "# %s\nwebhook-id: 8a0f1b1e-7f5c-8a3e-9a55-0d6c8f1f2b3c\nwebhook-timestamp: %d\nwebhook-signature: %s\n\n%s\n", c.what, made.Unix(), signed, body)
	}
	const name = "testdata/webhook-v1.txt"
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(out.String()), 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, string(want), out.String())
}
