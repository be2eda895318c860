# METADATA
# title: Obligations
# description: What is to be met before the action goes on.
# schemas:
#   - input: schema.input
package crm.obligations

needed contains obligation if some obligation in data.settings.obligations_of[input.action]
