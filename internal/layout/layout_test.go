// Package layout holds the tests that keep the import directions of the module, docs/coverage.md and docs/asvs.md. It has no other code.
package layout

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/crmguard/crmguard"

// house returns the top folder of a package of this module, "" for any other package.
func house(pkg string) string {
	rest, ok := strings.CutPrefix(pkg, module+"/")
	if !ok {
		return ""
	}
	h, _, _ := strings.Cut(rest, "/")
	return h
}

// within tells whether folder dir is top or below it.
func within(dir string, tops ...string) bool {
	return slices.ContainsFunc(tops, func(top string) bool { return dir == top || strings.HasPrefix(dir, top+"/") })
}

// heavy names the only folders that may import a dependency, outside tests and mains.
var heavy = map[string][]string{
	"github.com/open-policy-agent/opa":  {"authz/rego"},
	"github.com/hashicorp/vault/api":    {"encrypt/vault"},
	"github.com/tink-crypto/tink-go/v2": {"encrypt"},
	"github.com/nyaruka/phonenumbers":   {"encrypt/normalize"},
	"github.com/mozillazg/go-pinyin":    {"encrypt/normalize"},
	"gocloud.dev":                       {"backup/blobstore"},
	"github.com/aws/aws-sdk-go-v2":      {"backup/s3store"},
	"github.com/aws/smithy-go":          {"backup/s3store"},
	"github.com/pkg/sftp":               {"backup/sftpstore"},
	"github.com/cloudflare/circl":       {"backup/backupkey"},
	"modernc.org/sqlite":                {"backup/sqlsource", "internal/dialect"},
	"github.com/jackc/pgx/v5":           {"backup/sqlsource"},
	"github.com/spf13/cobra":            {"examples/crm"},
	"github.com/danielgtaylor/huma/v2":  {"examples/crm"},
	"github.com/xuri/excelize/v2":       {"crm/transfer/xlsx"},
	"github.com/chromedp/chromedp":      {},
	"github.com/go-webauthn/webauthn":   {"authz/authn/webauthn"},
	"github.com/coreos/go-oidc/v3":      {"authz/authn/oidc"},
	"golang.org/x/oauth2":               {"authz/authn/oidc"},
}

// stdOnly are folders that import the standard library and the module itself only, themselves, not
// those below.
var stdOnly = []string{
	"crm", "authz", "authz/authn", "crm/memstore", "crm/finance", "crm/flow", "crm/form", "crm/money", "crm/org", "crm/pool", "crm/project", "crm/sales",
	"crm/sla", "crm/stock", "crm/tally", "crm/trash", "crm/worktime", "authz/authn/session", "authz/authn/session/memstore", "authz/authn/token",
	"authz/authn/token/memstore", "authz/authn/once",
}

// violation says why a file in folder dir may not import pkg, or "".
func violation(dir, pkg string, test bool) string {
	own := house(module + "/" + dir)
	other := house(pkg)
	std := !strings.Contains(strings.SplitN(pkg, "/", 2)[0], ".")
	houses := []string{"crm", "encrypt", "authz", "audit", "backup"}
	store := pkg == module+"/crm/memstore" || pkg == module+"/crm/sqlstore"
	switch {
	case test:
		return ""
	case store && !within(dir, "examples", "crm/guard", "crm/crmtest", "crm/memstore", "crm/sqlstore", "internal"):
		return "only guard, the suites and mains import a store"
	case store && within(dir, "crm/guard"):
		return "guard is given its store"
	case other == "examples" && own != "examples":
		return "nobody imports the examples"
	case within(dir, "crm/transfer") && (pkg == module+"/crm/desk" || strings.HasPrefix(pkg, module+"/crm/dedupe")):
		return "what checks and desks do is handed to crm/transfer"
	case within(dir, "crm/desk") && !std && own != other:
		return "crm/desk sees crm and guard"
	case within(dir, "crm/dedupe") && !std && own != other:
		return "crm/dedupe sees crm and guard"
	case within(dir, "crm/outbox", "crm/demo") && !std && own != other:
		return "crm/outbox and crm/demo see crm and guard"
	case slices.Contains(houses, own) && slices.Contains(houses, other) && own != other &&
		!within(dir, "crm/guard", "crm/privacy"):
		return "houses import none of each other; crm/guard composes them"
	case within(dir, "encrypt") && !within(dir, "encrypt/normalize") && pkg == module+"/encrypt/normalize":
		return "encrypt is given its normalisers"
	case slices.Contains(stdOnly, dir) && !std && !strings.HasPrefix(pkg, module+"/"):
		return "this package imports the standard library only"
	case within(dir, "audit") && !std && other == "" && !strings.HasPrefix(pkg, "golang.org/x/"):
		return "audit imports the standard library and golang.org/x only"
	case pkg == "crypto/sha1" && within(dir, "authz/authn/totp"):
		return "" // HMAC-SHA-1, which RFC 6238 and every authenticator app speak
	case pkg == "crypto/sha1" || pkg == "crypto/md5" || pkg == "crypto/des" || pkg == "crypto/rc4":
		return "broken algorithms are not spoken"
	}
	for dep, owners := range heavy {
		if (pkg == dep || strings.HasPrefix(pkg, dep+"/")) && !within(dir, owners...) && !within(dir, "examples", "internal/realtest") {
			return "outside tests and mains " + dep + " is imported by " + strings.Join(owners, ", ") + " only"
		}
	}
	return ""
}

func TestImports(t *testing.T) {
	root := "../.."
	files := 0
	err := filepath.WalkDir(root, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(root, name)
		rel = filepath.ToSlash(rel)
		if d.IsDir() {
			if rel != "." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata" || d.Name() == "bin") {
				return fs.SkipDir
			}
			if _, err := os.Stat(filepath.Join(name, "go.mod")); err == nil && rel != "." {
				return fs.SkipDir // a nested module carries what users never get
			}
			return nil
		}
		if !strings.HasSuffix(rel, ".go") {
			return nil
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		files++
		for _, imp := range f.Imports {
			pkg, err := strconv.Unquote(imp.Path.Value)
			if err != nil {
				return err
			}
			dir := path.Dir(rel)
			suite := strings.HasSuffix(dir, "test") // exported conformance suites are tests too
			if why := violation(dir, pkg, strings.HasSuffix(rel, "_test.go") || suite); why != "" {
				t.Errorf("%s imports %s: %s", rel, pkg, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if files < 50 {
		t.Fatalf("looked at %d files only", files)
	}
}

// TestPlantedViolations keeps the rules from becoming rules that nothing breaks.
func TestPlantedViolations(t *testing.T) {
	for _, c := range []struct{ dir, pkg string }{
		{"audit", module + "/encrypt"},
		{"encrypt", module + "/crm"},
		{"backup", module + "/audit"},
		{"authz", module + "/crm"},
		{"crm", module + "/encrypt"},
		{"crm/memstore", module + "/audit"},
		{"crm/guard", module + "/crm/sqlstore"},
		{"crm/desk", module + "/authz"},
		{"crm/outbox", module + "/encrypt"},
		{"crm/outbox", module + "/crm/sqlstore"},
		{"crm/demo", module + "/authz"},
		{"crm/desk", module + "/encrypt"},
		{"crm/desk", module + "/crm/sqlstore"},
		{"crm/dedupe", module + "/encrypt/normalize"},
		{"crm/dedupe", module + "/crm/sqlstore"},
		{"crm/transfer", module + "/crm/sqlstore"},
		{"authz/review", module + "/crm/memstore"},
		{"crm", "github.com/stretchr/testify/require"},
		{"authz", "github.com/open-policy-agent/opa/v1/rego"},
		{"crm/guard", "github.com/open-policy-agent/opa/v1/rego"},
		{"encrypt", "github.com/hashicorp/vault/api"},
		{"encrypt", module + "/encrypt/normalize"},
		{"backup", "gocloud.dev/blob"},
		{"audit", "github.com/klauspost/compress/zstd"},
		{"crm/sqlstore", "github.com/jackc/pgx/v5"},
		{"crm/guard", module + "/examples/crm/page"},
		{"encrypt", "crypto/des"},
		{"crm/pool", "github.com/stretchr/testify/require"},
		{"crm/flow", module + "/authz"},
		{"crm/wecom2", "crypto/sha1"},
		{"authz/authn/password", "crypto/sha1"},
		{"authz/authn/totp", "crypto/md5"},
		{"authz/authn", "golang.org/x/crypto/argon2"},
		{"authz/authn/password", module + "/encrypt"},
		{"authz/authn/lockout", module + "/audit"},
	} {
		if violation(c.dir, c.pkg, false) == "" {
			t.Errorf("%s may import %s", c.dir, c.pkg)
		}
	}
	for _, c := range []struct{ dir, pkg string }{
		{"crm/guard", module + "/encrypt"},
		{"crm/desk", module + "/crm/guard"},
		{"crm/outbox", module + "/crm/guard"},
		{"crm/demo", module + "/crm/sales"},
		{"crm/guard", module + "/encrypt/normalize"},
		{"authz/rego", "github.com/open-policy-agent/opa/v1/ast"},
		{"examples/crm/app", module + "/crm/sqlstore"},
		{"audit", "golang.org/x/mod/sumdb/tlog"},
		{"authz/authn/totp", "crypto/sha1"},
		{"authz/authn/password", "golang.org/x/crypto/argon2"},
	} {
		if why := violation(c.dir, c.pkg, false); why != "" {
			t.Errorf("%s may not import %s: %s", c.dir, c.pkg, why)
		}
	}
}
