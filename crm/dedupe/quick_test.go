package dedupe_test

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/crmguard/crmguard/authz"
	"github.com/crmguard/crmguard/crm"
	"github.com/crmguard/crmguard/crm/dedupe"
	"github.com/crmguard/crmguard/crm/guard"
)

// TestQuick: what a Checker does not compare to the end would have been unlike; of what is one it says the same as all comparisons together.
func TestQuick(t *testing.T) {
	rules := map[string]*dedupe.Rules{}
	for _, typ := range []string{"customer", "people"} {
		rules[typ], _ = dedupe.Default(typ)
		require.NotNil(t, rules[typ])
	}
	var err error
	rules["by hand"], err = dedupe.Parse([]byte(`{"type":"x","likely":0.4,"certain":0.8,"score":{"mean":[
		{"all":[{"fields":["name"],"as":"jaro"},{"any":[{"fields":["born"],"as":"date"},{"fields":["address"],"as":"address","worth":0.5}],"worth":0.9}],"weight":3},
		{"any":[{"fields":["phone","id_number"],"as":"edit"},{"mean":[{"fields":["email"],"as":"exact"},{"fields":["name"],"as":"pinyin","floor":0.1}],"least":0.5}],"against":4},
		{"fields":["phone","id_number"],"as":"exact","weight":0.5,"against":2}]}}`))
	require.NoError(t, err)
	r := rand.New(rand.NewPCG(1, 2))
	from := func(list ...string) crm.Text { return crm.NewText(list[r.IntN(len(list))]) }
	one := func() (*someone, *crm.Customer) {
		s := &someone{
			Name:    from("", "曾小明", "曾晓明", "Zeng Xiaoming", "Xiaoming Zeng", "John Smith", "Jon Smyth", "Smith", "王伟", "张伟", "J. Smith-Jones", "Acme Ltd", "北京华为技术有限公司"),
			Born:    from("", "1980-02-03", "1980-03-02", "1980-02-08", "1999-12-31"),
			Address: from("", "文三路1号3幢", "文三路 1-3", "文三路2号3幢", "上海市中山路12号501室", "12 High Street, Leeds", "12 High St Leeds", "13 High Street, York", "Mill Lane"),
			Phone:   from("", "13800138000", "+86 138 0013 8000", "13800138001", "02012345678"), Email: from("", "a@example.com", "A@example.com", "b@example.com"),
			IDNumber: from("", "310101198002030012", "310101198002030021", "110105199912310015"),
		}
		return s, &crm.Customer{Name: s.Name, Phone: s.Phone, Phone2: from("", "13800138000", "13700137000"), Email: s.Email, Address: s.Address, IDNumber: s.IDNumber, City: from("", "上海", "Leeds").Expose()}
	}
	masked := map[string]guard.Access{"name": authz.Masked, "address": authz.Open, "phone": authz.Masked, "phone2": authz.Open, "email": authz.Open, "id_number": authz.Masked, "city": authz.Open, "born": authz.Open}
	for name, rules := range rules {
		bands := map[guard.Band]int{}
		for _, access := range []map[string]guard.Access{nil, masked} {
			people, err := dedupe.Both[*someone](rules, access)
			customers, err2 := dedupe.Both[*crm.Customer](rules, access)
			require.True(t, (err == nil) != (err2 == nil))
			for range 3_000 {
				a, x := one()
				b, y := one()
				var quick, whole guard.Verdict
				if err == nil {
					quick, whole = people(a, b)
				} else {
					quick, whole = customers(x, y)
				}
				bands[whole.Band]++
				if whole.Band == guard.Unlike {
					require.Equal(t, guard.Unlike, quick.Band, name)
				} else {
					require.Equal(t, whole, quick, name)
				}
			}
		}
		for _, band := range []guard.Band{guard.Unlike, guard.Likely, guard.Certain} {
			assert.Greater(t, bands[band], 30, "%s: %s", name, band)
		}
	}
}
