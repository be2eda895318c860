package s3store

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/smithy-go"

	"github.com/crmguard/crmguard/backup"
)

// Errors besides those of package backup.
var (
	ErrNoBucket = errors.New("s3store: no such bucket")
	ErrDenied   = errors.New("s3store: denied") // wrong credentials, or they do not permit it
)

// code returns the store's code of an error, "" for one that is not the store's.
func code(err error) string {
	var ae smithy.APIError
	if errors.As(err, &ae) {
		return ae.ErrorCode()
	}
	return ""
}

func status(err error) int {
	var re *awshttp.ResponseError
	if errors.As(err, &re) {
		return re.HTTPStatusCode()
	}
	return 0
}

// failure is what a call ended with. Its text has the store's code and no more of what the store wrote.
type failure struct {
	call  string
	kind  error // that callers branch on; nil = none
	cause error
}

func (f *failure) Error() string {
	c, s := code(f.cause), status(f.cause)
	switch {
	case c != "" && f.kind != nil:
		return fmt.Sprintf("%v (%s: %s, status %d)", f.kind, f.call, c, s)
	case c != "":
		return fmt.Sprintf("s3store: %s: %s, status %d", f.call, c, s)
	case s != 0:
		return fmt.Sprintf("s3store: %s: status %d", f.call, s)
	}
	var ue *url.Error
	var oe *smithy.OperationError
	switch {
	case errors.As(f.cause, &ue): // it has a URL before
		return fmt.Sprintf("s3store: %s: %v", f.call, ue.Err)
	case errors.As(f.cause, &oe):
		return fmt.Sprintf("s3store: %s: %v", f.call, oe.Err)
	}
	return fmt.Sprintf("s3store: %s: %v", f.call, f.cause)
}

func (f *failure) Unwrap() []error {
	if f.kind == nil {
		return []error{f.cause}
	}
	return []error{f.kind, f.cause}
}

// translate makes the errors that package backup knows of those of the store.
func translate(call string, err error) error {
	if err == nil {
		return nil
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return &failure{call: call, cause: err}
	}
	switch code(err) {
	case "NoSuchKey", "NoSuchVersion", "NotFound":
		return backup.ErrNotFound
	case "PreconditionFailed":
		return backup.ErrExists
	case "NoSuchBucket":
		return &failure{call, ErrNoBucket, err}
	case "QuotaExceeded", "InsufficientStorage", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded":
		return &failure{call, backup.ErrFull, err}
	case "AccessDenied", "Forbidden", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken", "RequestTimeTooSkewed":
		return &failure{call, ErrDenied, err}
	}
	switch status(err) {
	case http.StatusInsufficientStorage:
		return &failure{call, backup.ErrFull, err}
	case http.StatusUnauthorized, http.StatusForbidden:
		return &failure{call, ErrDenied, err}
	}
	return &failure{call: call, cause: err}
}
