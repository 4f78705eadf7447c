-- A call to the outside at load: there is no ctx.
-- expect: refused script.invalid attack.lua:3
return ctx.http { url = "http://127.0.0.1:1/" }
