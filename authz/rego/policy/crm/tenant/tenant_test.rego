package crm.tenant_test

import data.crm.tenant

test_allow_same if tenant.same with input as {"subject": {"tenant": "a"}, "resource": {"tenant": "a"}}

test_deny_other if not tenant.same with input as {"subject": {"tenant": "a"}, "resource": {"tenant": "b"}}

test_deny_empty if not tenant.same with input as {"subject": {"tenant": ""}, "resource": {"tenant": ""}}

test_deny_missing if not tenant.same with input as {"subject": {"tenant": "a"}, "resource": {}}
