// Package audit is a log that proves itself.
package audit
