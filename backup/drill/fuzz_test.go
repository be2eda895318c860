package drill_test

import (
	"os"
	"testing"

	"github.com/crmguard/crmguard/backup/drill"
)

func FuzzVerify(f *testing.F) {
	b, err := os.ReadFile("testdata/report-1.txt")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte("crmguard-drill-1\n{}\nsignature: \n"))
	f.Fuzz(func(t *testing.T, file []byte) {
		if _, err := drill.Verify(file, pin); err == nil && string(file) != string(b) {
			t.Error("a report that nobody signed verifies")
		}
	})
}
