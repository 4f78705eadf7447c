// power.test.mjs with a folder of logs as the store.
process.env.TEST_BACKEND = 'file';
await import('./power.test.mjs');
