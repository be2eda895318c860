package crm.tenant_test

import data.crm.tenant

test_allow_same if tenant.same with input as {"subject": {"tenant": "a"}, "resource": {"tenant": "a"}}

test_deny_other if not tenant.same with input as {"subject": {"tenant": "a"}, "resource": {"tenant": "b"}}

test_deny_no_word[name] if {
	some name, value in {"empty": "", "null": null, "number": 1, "no": false}
	not tenant.same with input as {"subject": {"tenant": value}, "resource": {"tenant": value}}
}

test_deny_missing if {
	not tenant.same with input as {"subject": {"tenant": "a"}, "resource": {}}
	not tenant.same with input as {"subject": {}, "resource": {"tenant": "a"}}
	not tenant.same with input as {"subject": {}, "resource": {}}
}
