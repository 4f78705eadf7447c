-- A file that is no UTF-8.
-- as: source
-- expect: refused script.invalid
return "return function() return '\255\254' end"
