package export

import "github.com/crmguard/crmguard/audit"

// What the tests outside the package need of the inside.

func Clean(s string) string { return clean(s) }

func (s *Syslog) Message(r Record) ([]byte, error) { return s.appendMessage(nil, &r) }

func ParseCursor(b []byte) ([]byte, error) {
	c, err := parseCursor(b)
	return c.bytes(), err
}

func SeverityOf(e audit.Event) int { return severity(&e) }
