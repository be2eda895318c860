package crm.active_test

import data.crm.active

test_allow_active if active.subject with input as {"subject": {"id": "e1", "active": true}}

test_deny_suspended if not active.subject with input as {"subject": {"id": "e1", "active": false}}

test_deny_without_id[name] if {
	some name, id in {"empty": "", "null": null, "number": 7, "yes": true}
	not active.subject with input as {"subject": {"id": id, "active": true}}
}

test_deny_not_marked[name] if {
	some name, active_as in {"null": null, "word": "true", "number": 1}
	not active.subject with input as {"subject": {"id": "e1", "active": active_as}}
}

test_deny_missing if {
	not active.subject with input as {"subject": {"id": "e1"}}
	not active.subject with input as {"subject": {"active": true}}
	not active.subject with input as {}
}
