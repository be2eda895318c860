package crm.active_test

import data.crm.active

test_allow_active if active.subject with input as {"subject": {"id": "e1", "active": true}}

test_deny_suspended if not active.subject with input as {"subject": {"id": "e1", "active": false}}

test_deny_without_id if not active.subject with input as {"subject": {"id": "", "active": true}}

test_deny_missing if not active.subject with input as {"subject": {"id": "e1"}}
