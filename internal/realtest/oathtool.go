package realtest

import (
	"errors"
	"os/exec"
	"testing"
)

// Oathtool returns the path of OATH Toolkit's program, which makes one-time codes. The test ends as Require says when
// it is not installed.
func Oathtool(t testing.TB) string {
	t.Helper()
	path, err := exec.LookPath("oathtool")
	if err != nil {
		err = errors.New("OATH Toolkit is not installed: apt-get install oathtool")
	}
	Require(t, "oathtool", err)
	return path
}
